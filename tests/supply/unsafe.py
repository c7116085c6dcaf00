#!/usr/bin/env python3
"""Counts `unsafe` in the crates that are linked into attachd. Usage: unsafe.py DEPS, where DEPS is a folder of a finished build,
such as target/debug/deps. Prints a line for each crate with any: how often, and its name and version.

What is counted is the keyword in the source files that the compiler read for this build, as its dependency files say, outside of
comments and literals: blocks, functions, traits, implementations and foreign functions alike. Code of these files that is for
other platforms, or for tests, counts as well, and what macros expand to does not."""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = "x86_64-unknown-linux-gnu"
# In this order: a raw string, a string, a character (a lifetime is none), a comment of a line, the begin of a longer one.
SKIPPED = re.compile(
    r"""\bb?c?r(?P<hashes>#*)".*?"(?P=hashes)|"(?:\\.|[^"\\])*"|'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\])'|//[^\n]*|/\*""", re.DOTALL
)
BOUND = re.compile(r"/\*|\*/")


def code(text):
    """A source without comments and literals."""
    kept, at = [], 0
    while found := SKIPPED.search(text, at):
        kept.append(text[at : found.start()])
        at = found.end()
        if found.group() == "/*":
            depth = 1
            while depth and (bound := BOUND.search(text, at)):
                depth += 1 if bound.group() == "/*" else -1
                at = bound.end()
            if depth:
                at = len(text)
    kept.append(text[at:])
    return " ".join(kept)


def count(text):
    """How often the keyword is in a source. `#[unsafe(no_mangle)]` is one, and `unsafe_code` is not."""
    return len(re.findall(r"\bunsafe\b", code(text)))


def linked():
    """The crates that are linked into attachd: the folder of each, by name and version."""
    run = lambda *command: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    tree = run("cargo", "tree", "--locked", "--package", "attachd", "--target", TARGET, "--edges", "normal,no-proc-macro", "--prefix", "none")
    wanted = {tuple(line.split()[:2]) for line in tree.splitlines()}
    described = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET))
    folders = {}
    for package in described["packages"]:
        if (package["name"], "v" + package["version"]) in wanted:
            folders[f'{package["name"]} {package["version"]}'] = pathlib.Path(package["manifest_path"]).parent
    return folders


def compiled(deps):
    """The source files that the compiler read, by the dependency files of a build."""
    files = set()
    for path in pathlib.Path(deps).glob("*.d"):
        # `/path/one.rs:` is a file; spaces in it are escaped.
        files.update(line[:-1] for line in path.read_text().splitlines() if line.startswith("/") and line.endswith(".rs:"))
    return [file.replace("\\ ", " ") for file in files]


def counts(deps):
    """How often the keyword is in the sources of each crate. The crates of the workspace forbid it, which the compiler checks."""
    folders = {f"{folder}/": name for name, folder in linked().items() if ROOT not in (folder, *folder.parents)}
    # The sources of a registry lie in one folder, with a folder for each crate.
    depth = {folder.count("/") for folder in folders}
    found = {}
    for file in compiled(deps):
        for slashes in depth:
            name = folders.get("/".join(file.split("/")[:slashes]) + "/")
            if name:
                found[name] = found.get(name, 0) + count(pathlib.Path(file).read_text(errors="replace"))
    missing = set(folders.values()) - set(found)
    if missing:
        raise SystemExit(f"{deps} has no build of {', '.join(sorted(missing))}")
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: unsafe.py DEPS")
    found = counts(sys.argv[1])
    for name, times in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        if times:
            print(times, name)
    none = sum(times == 0 for times in found.values())
    print(f"{sum(found.values())} in {len(found) - none} of {len(found)} crates", file=sys.stderr)
