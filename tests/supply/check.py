"""Checks the bill of materials and the page on the supply chain. Usage: check.py DEPS. Prints `ok …` or `FAIL …` for each check and
their sum. DEPS is a folder of a finished build, such as target/dist/deps; requirements.txt lists the packages that it needs."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs/explanation/supply-chain.md"
# The platform of the page.
TARGET = "x86_64-unknown-linux-gnu"
# How many crates the table of `unsafe` has.
ROWS = 20


def output(*command):
    """What a command prints."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def module(path):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem + "_script", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def written():
    """The bill of materials, as the script writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "sbom.json"
        output(ROOT / "deploy/sbom.py", path)
        return path.read_text()


def valid(text):
    """Why it is not CycloneDX 1.6."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return error and str(error)


def complete(bill):
    """The crates that cargo and the bill do not have in common, by the scope that says whether they are linked."""
    def crates(edges):
        lines = output("cargo", "tree", "--locked", "--package", "attachd", "--target", TARGET, "--edges", edges, "--prefix", "none")
        return {tuple(line.split()[:2]) for line in lines.splitlines()}

    listed = lambda scope: {
        (one["name"], "v" + one["version"])
        for one in [*bill["components"], bill["metadata"]["component"]]
        if scope in (None, one["scope"])
    }
    strays = [("all", crates("normal,build") ^ listed(None)), ("linked", crates("normal,no-proc-macro") ^ listed("required"))]
    strays.append(("normal", crates("normal") - listed(None)))
    return "; ".join(f"{name}: {sorted(stray)}" for name, stray in strays if stray)


def locked(bill):
    """The crates of a registry whose checksum is not that of Cargo.lock."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    sums = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
    wrong = []
    for one in bill["components"]:
        said = [digest["content"] for digest in one.get("hashes", [])]
        known = sums[(one["name"], one["version"])]
        if said != ([known] if known else []):
            wrong.append(one["name"])
    return ", ".join(wrong)


def rows(title, columns):
    """The rows of the table below a heading."""
    section = PAGE.read_text().split(f"# {title}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if len(row) == columns]


def licences():
    """The crates whose licence the page has wrong."""
    described = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET))
    nodes = {node["id"]: node for node in described["resolve"]["nodes"]}
    packages = {package["id"]: package for package in described["packages"]}
    (itself,) = [package["id"] for package in described["packages"] if package["name"] == "attachd"]
    known = {packages[found]["name"]: packages[found]["license"] for found in nodes[itself]["dependencies"]}
    said = {row[0]: row[4] for row in rows("Crates", 6)}
    return ", ".join(sorted(name for name in known if said.get(name) != known[name]))


def counted(deps):
    """The rows of `unsafe` that are not as they are counted."""
    script = module(HERE / "unsafe.py")
    found = {name: times for name, times in script.counts(deps).items() if times}
    most = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:ROWS]
    said = [(name, int(times)) for name, times, _ in rows("Unsafe code", 3)]
    total = f"{sum(found.values()):,} times, in {len(found)} of"
    wrong = [f"{name} is {times}" for name, times in most if (name, times) not in said]
    wrong += [f"{name} does not belong there" for name, times in said if (name, times) not in most]
    if total not in re.sub(r"\s+", " ", PAGE.read_text()):
        wrong.append(f"the sum is not “{total} …”")
    return ", ".join(wrong)


def main():
    text = written()
    bill = json.loads(text)
    checks = [
        ("the bill of materials is valid CycloneDX 1.6", valid(text)),
        ("the bill of materials has the crates of cargo tree and no others", complete(bill)),
        ("the bill of materials has the checksums of Cargo.lock", locked(bill)),
        ("the bill of materials is the same when it is written again", "" if written() == text else "it differs"),
        ("the page has the licences of the direct dependencies", licences()),
        ("the page has the counts of unsafe", counted(sys.argv[1])),
    ]
    for name, why in checks:
        print(f"FAIL {name}: {why}" if why else f"ok {name}")
    failed = sum(bool(why) for _, why in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    # The modules below lie in the checkout, which a check leaves as it is.
    sys.dont_write_bytecode = True
    main()
