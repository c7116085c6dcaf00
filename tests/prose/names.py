"""The names that documents may use: of configuration keys, variables, metrics, commands, alerts and error reasons."""

import re
import tomllib

from markdown import Document

KEY = re.compile(r"^(rest|grpc|admin|storage|attachments|limits|auth|log|traces|shutdown)((\[\])?\.[a-z0-9_*]+)+$")
# Names that have the form of a key and are none: packages and fields of the proto.
NOT_KEYS = re.compile(r"^attachments\.v2\b")
VARIABLE = re.compile(r"\bATTACHD_[A-Z0-9_*]+(?<!_)")
METRIC = re.compile(r"\b(attachd|process)_[a-z0-9_]+")
ALERT = re.compile(r"\bAttachd[A-Z][A-Za-z]+\b")
# A call of the program: at the beginning of a command, or by a path.
COMMAND = re.compile(
    r"(?:^\s*|[|;&]\s*|\s--\s+|/usr/bin/|target/[a-z]+/|[A-Z_]=\S+\s+)attachd ([a-z][a-z-]*)((?: +[^|;&#]+)?)"
)
PATH = re.compile(r"^(src|tests|crates|deploy|proto|docs|\.ci)/[\w./-]+$")
MODULE = re.compile(r"^[a-z_]+(::[a-z_]+)+$")
PANELS = re.compile(r"\bpanels?((?:,? (?:and )?\*[^*]+\*)+)")
OPTION = re.compile(r"(?<=\s)--([a-z][a-z-]+)")
SUFFIX = re.compile(r"_(bucket|count|sum)$")


class Names:
    """What exists, by the generated references and the sources below `root`."""

    def __init__(self, root):
        read = lambda path: (root / path).read_text()
        reference = read("docs/configuration.md")
        self.keys = set(re.findall(r"^\| `([a-z][\w.\[\]*]+)` \|", reference, re.MULTILINE))
        self.variables = set(re.findall(r"`(ATTACHD_[A-Z0-9_*]+)`", reference))
        # Variables of the tests and of the command line, which are no keys of the configuration.
        self.others = set()
        for folder in ("src", "tests", "deploy"):
            for path in (root / folder).rglob("*"):
                if path.is_file() and path.suffix in (".rs", ".sh", ".py", ".mjs", ".yaml") and ".env" not in path.parts:
                    if path.parent.name != "prose":
                        self.others |= set(re.findall(r"ATTACHD_[A-Z]+(?:_[A-Z]+)*", path.read_text(errors="replace")))
        self.metrics = set(re.findall(r"^\| `([a-z_0-9]+)` \|", read("docs/metrics.md"), re.MULTILINE))
        self.commands = self._commands(root)
        self.options = {"help", "version"}
        for path in (root / "src/cli").rglob("*.rs"):
            for attribute, field in re.findall(r"#\[arg\(([^\]]*\blong\b[^\]]*)\)\]\s*(?:pub )?(\w+):", path.read_text()):
                named = re.search(r'long = "([a-z-]+)"', attribute)
                self.options.add(named.group(1) if named else field.replace("_", "-"))
        for attribute, field in re.findall(r"#\[arg\(([^\]]*\blong\b[^\]]*)\)\]\s*(?:pub )?(\w+):", read("src/cli.rs")):
            self.options.add(field.replace("_", "-"))
        self.alerts = set(re.findall(r"alert: (\w+)", read("deploy/kubernetes/components/monitoring/rules.yaml")))
        errors = "\n".join(path.read_text() for path in [root / "src/error.rs", *(root / "src/error").rglob("*.rs")])
        found = re.findall(r'^\s*"([A-Z][A-Z_]+)",$|, "([A-Z][A-Z_]+)",', errors, re.MULTILINE)
        self.reasons = {one or other for one, other in found}

        self.root = root
        self.panels = set(re.findall(r'"title": "([^"]+)"', read("deploy/dashboards/attachd.json")))
        self.modules = {path.stem for folder in ("src", "tests/it") for path in (root / folder).iterdir()}
        sources = [path for folder in ("src", "tests/it") for path in sorted((root / folder).rglob("*.rs"))]
        self.sources = "\n".join(path.read_text() for path in sources)

        for name in ("keys", "metrics", "commands", "alerts", "reasons", "panels", "modules"):
            if not getattr(self, name):
                raise SystemExit(f"tests/prose/names.py finds no {name}: it reads them in the wrong place")

    @staticmethod
    def _commands(root):
        source = (root / "src/cli.rs").read_text()
        enum = re.search(r"\nenum Command \{(.*?)\n\}", source, re.DOTALL).group(1)
        variants = re.findall(r"^    ([A-Z]\w*)[,({ ]", enum, re.MULTILINE)
        kebab = lambda name: re.sub(r"(?<!^)([A-Z])", r"-\1", name).lower()
        return {kebab(variant) for variant in variants} | {"help"}

    def has_key(self, key):
        """Whether this is a key, or a table of keys."""
        bare = re.sub(r"\[\]", "", key)
        for known in self.keys:
            known = known.replace("[]", "")
            if bare == known or known.startswith(bare + "."):
                return True
            if known.endswith(".*") and bare.startswith(known[:-1]):
                return True
        return False

    def has_module(self, path):
        """Whether a path of modules leads to a file, an item or a test."""
        first, *_, last = path.split("::")
        if first not in self.modules or (self.root / "src" / (path.replace("::", "/") + ".rs")).exists():
            return True
        return bool(re.search(rf"\b(mod|fn) {last}\b", self.sources))

    def has_variable(self, name):
        """Whether a key or the program has this variable."""
        if name in self.others:
            return True
        general = re.sub(r"__\d+__", "__0__", name)
        for known in self.variables:
            if general == known or (known.endswith("*") and general.startswith(known[:-1])):
                return True
        return False

    def has_metric(self, name):
        """Whether this is a metric, or a series of one."""
        return name in self.metrics or SUFFIX.sub("", name) in self.metrics


def unknown(document, names):
    """Names in a document that do not exist."""
    for line, span in document.spans():
        if KEY.match(span) and not NOT_KEYS.match(span) and not span.endswith((".rs", ".md", ".json", ".proto", ".sh")):
            if not names.has_key(span):
                yield line, f"there is no configuration key {span}"
        for metric in METRIC.finditer(span):
            if re.fullmatch(r"[a-z0-9_]+(\{.*\})?", span) and not names.has_metric(metric.group()):
                yield line, f"there is no metric {metric.group()}"
        if PATH.match(span) and ".env" not in span and not (names.root / span).exists():
            yield line, f"there is no file {span}"
        if MODULE.match(span) and not span.startswith("attachd::") and not names.has_module(span):
            yield line, f"there is no module, function or test {span}"
        yield from _commands(line, span, names)
        yield from _variables(line, span, names)
    for code in document.code:
        if code.language in ("sh", "console"):
            for offset, text in enumerate(code.text.replace("\\\n", "  ").split("\n")):
                yield from _commands(code.line + 1 + offset, text, names)
            yield from _variables(code.line, code.text, names)
        if code.language == "toml":
            yield from _table(code, names)
    for block in document.blocks:
        for alert in ALERT.findall(block.text):
            if alert not in names.alerts and alert.isascii():
                yield block.line, f"there is no alert {alert}"
        for panels in PANELS.findall(block.text):
            for panel in re.findall(r"\*([^*]+)\*", panels):
                if panel not in names.panels:
                    yield block.line, f"there is no panel {panel}"


def _variables(line, text, names):
    for variable in VARIABLE.findall(text):
        if not names.has_variable(variable):
            yield line, f"there is no variable {variable}"


def _commands(line, text, names):
    for command, rest in COMMAND.findall(text):
        if command not in names.commands:
            yield line, f"there is no command attachd {command}"
            continue
        for option in OPTION.findall(rest.split("`")[0]):
            if option not in names.options:
                yield line, f"attachd {command} has no option --{option}"


def _table(code, names):
    try:
        table = tomllib.loads(code.text)
    except tomllib.TOMLDecodeError as error:
        yield code.line, f"the TOML is invalid: {error}"
        return
    for key in _keys(table, ""):
        if not names.has_key(key):
            yield code.line, f"there is no configuration key {key}"


def _keys(value, path):
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            name = "x" if re.search(r"[^\w]", name) else name
            yield from _keys(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from _keys(inner, path)
    else:
        yield path


def runbooks(root, names):
    """Alerts without a runbook, and runbooks without an alert."""
    pages = {path.stem for path in (root / "docs/runbooks").glob("*.md")} - {"README"}
    wanted = {alert.lower(): alert for alert in names.alerts}
    for page, alert in sorted(wanted.items()):
        if page not in pages:
            yield f"docs/runbooks/{page}.md", 1, f"the alert {alert} has no runbook"
        elif not Document((root / f"docs/runbooks/{page}.md").read_text()).lines[0] == f"# {alert}":
            yield f"docs/runbooks/{page}.md", 1, f"the title must be {alert}"
    for page in sorted(pages - set(wanted)):
        yield f"docs/runbooks/{page}.md", 1, "there is no alert of this name"


def reasons(root, names):
    """Reasons of the error table that the reference leaves out, and reasons that do not exist."""
    path = "docs/reference/errors.md"
    document = Document((root / path).read_text())
    documented = {text for _, text in document.spans() if re.fullmatch(r"[A-Z]+(_[A-Z]+)+|INTERNAL|DRAINING|FORBIDDEN|OVERLOADED|CONFLICT", text)}
    for reason in sorted(names.reasons - documented):
        yield path, 1, f"the reason {reason} is missing"
