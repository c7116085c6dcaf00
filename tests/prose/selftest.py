"""Plants one violation of each kind into a copy of the documents, and reports each that the check does not find."""

import pathlib
import shutil
import tempfile

from check import Check, tracked

PAGE = "docs/seeded.md"
LONG = "word " * 41
# Each seed: a file, the text to replace (empty: append), the new text, and a part of the message that must follow.
SEEDS = [
    ("README.md", "", "\n" + "wide " * 22 + "\n", "columns; wrap prose at 100"),
    ("README.md", "", "\nUpload through either door.\n", 'the phrase "door" is banned'),
    ("SECURITY.md", "", "\nA token that does not hold.\n", 'the phrase "does not hold" is banned'),
    ("CONTRIBUTING.md", "", "\nThe keys are not to be had.\n", 'the phrase "be had" is banned'),
    ("docs/README.md", "", "\nThe caller is told nothing.\n", 'the phrase "is told" is banned'),
    ("docs/how-to/backup.md", "", "\nThe content is taken back.\n", 'the phrase "taken back" is banned'),
    ("docs/how-to/upgrade.md", "", "\nThe record stands.\n", 'the phrase "stands" is banned'),
    ("docs/how-to/tls.md", "", "\nThe port is shut.\n", 'the phrase "shut" is banned'),
    ("docs/how-to/tls.md", "", "\nA tenth of the time.\n", 'the phrase "A tenth" is banned'),
    ("docs/how-to/tls.md", "", "\nThe key was come by.\n", 'the phrase "come by" is banned'),
    ("docs/how-to/tls.md", "", "\nThe file is looked at.\n", 'the phrase "looked at" is banned'),
    ("docs/how-to/tls.md", "", "\nUse it in earnest.\n", 'the phrase "in earnest" is banned'),
    ("docs/how-to/tls.md", "", "\nIt takes so much time.\n", 'the phrase "so much" is banned'),
    ("docs/how-to/tls.md", "", "\nIt takes half as much time.\n", 'the phrase "half as much" is banned'),
    ("docs/how-to/tls.md", "", "\nA CA must vouch for it.\n", 'the phrase "vouch for" is banned'),
    ("docs/how-to/tls.md", "", "\nThis serves whoever asks.\n", 'the phrase "whoever" is banned'),
    ("docs/how-to/tls.md", "", "\nHave the key at hand.\n", 'the phrase "at hand" is banned'),
    ("docs/how-to/proxies.md", "", "\n| b | c |\n|---|---|\n| who may call | x |\n", "clause in place of a noun"),
    ("docs/how-to/sizing.md", "", "\nWho cannot get memory waits.\n", "clause in place of a noun"),
    ("docs/explanation/memory.md", "", f"\n{LONG}\n", "a sentence has 41 words"),
    ("ARCHITECTURE.md", "", "\n[a](docs/nowhere.md)\n", "the link docs/nowhere.md leads nowhere"),
    ("ARCHITECTURE.md", "", "\n[a](docs/README.md#nowhere)\n", "the link docs/README.md#nowhere has no such heading"),
    ("docs/reference/log.md", "", "\n[a](../../README.md)\n", "leads out of the book"),
    ("docs/reference/rest.md", "", "\n`limits.no_such_key`\n", "no configuration key limits.no_such_key"),
    ("docs/reference/grpc.md", "", "\n```toml\n[limits]\nno_such = 1\n```\n", "no configuration key limits.no_such"),
    ("docs/reference/grpc.md", "", "\n`ATTACHD_LIMITS__NO_SUCH`\n", "no variable ATTACHD_LIMITS__NO_SUCH"),
    ("docs/reference/forms.md", "", "\n`attachd_no_such_total`\n", "no metric attachd_no_such_total"),
    ("docs/reference/tokens.md", "", "\n`attachd conjure`\n", "no command attachd conjure"),
    ("docs/tutorial/laptop.md", "", "\n```sh\nattachd gc --conjure\n```\n", "attachd gc has no option --conjure"),
    ("docs/adr/README.md", "", "\n`src/no_such.rs`\n", "no file src/no_such.rs"),
    ("ARCHITECTURE.md", "", "\n`store::no_such`\n", "no module, function or test store::no_such"),
    ("docs/how-to/monitoring.md", "", "\nAttachdNoSuch\n", "no alert AttachdNoSuch"),
    ("docs/how-to/upgrade.md", "", "\nOpen the panel *No such*.\n", "no panel No such"),
    ("docs/reference/errors.md", "`DRAINING`", "draining", "the reason DRAINING is missing"),
    (PAGE, "", "# Seeded\n", "the page seeded.md is not listed"),
    ("docs/SUMMARY.md", "", "\n- [Forms](reference/forms.md)\n", "the page reference/forms.md is listed twice"),
    ("docs/runbooks/attachddown.md", "# AttachdDown", "# Down", "the title must be AttachdDown"),
    ("docs/runbooks/attachdnosuch.md", "", "# AttachdDown\n", "there is no alert of this name"),
    ("deploy/Dockerfile", "", "\n# Seeded by and by.\n", 'the phrase "by and by" is banned'),
    ("deploy/kubernetes/components/monitoring/rules.yaml", "No replica of attachd", "What was had", "a sentence begins with a clause in place of a noun: \"What was had"),
    ("src/lib.rs", "", "\n// docs/no-such.md\n", "there is no document docs/no-such.md"),
    ("src/lib.rs", "", "\n// docs/README.md#no-such\n", "docs/README.md has no heading no-such"),
]


def main(root):
    """The numbers of seeds that were found and that were not."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder).resolve()
        for path in tracked(root):
            if not path.startswith("tests/.env"):
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / path, copy / path)
        before = {text for _, _, text in Check(copy).problems()}
        for path, old, new, _ in SEEDS:
            file = copy / path
            text = file.read_text() if file.exists() else ""
            file.write_text(text.replace(old, new) if old else text + new)
        after = [(path, text) for path, _, text in Check(copy).problems()]
    passed = failed = 0
    for path, _, new, message in SEEDS:
        if any(message in text for text in before):
            failed += 1
            print(f"FAIL {message}: found without the seed")
        elif any(message in text for _, text in after):
            passed += 1
            print(f"ok found: {message}")
        else:
            failed += 1
            print(f"FAIL not found: {message} after {new!r} in {path}")
    return passed, failed
