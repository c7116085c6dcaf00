#!/usr/bin/env python3
"""Writes the software bill of materials of the program attachd, in the JSON form of CycloneDX 1.6.

Usage: deploy/sbom.py OUT [TARGET]. TARGET is the platform of the program, by default x86_64-unknown-linux-gnu.

The crates are those of `cargo tree`, so they are those that cargo compiles for this program with its default features. A crate
that is linked into the program has the scope `required`. A crate that only runs in the build has the scope `excluded`: build
scripts, code generators and procedural macros. The same sources give the same bytes. Needs Python 3.11 and cargo, and no network
once cargo has the crates."""

import datetime
import json
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Serial numbers are name-based UUIDs, so that they depend on the content only.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://attachd.example/sbom")
# A line of `cargo tree --prefix depth`: `3serde v1.0.0 (proc-macro) (*)`.
LINE = re.compile(r"^(\d+)(\S+) v(\S+)((?: \([^)]*\))*)$")


def output(*command):
    """What a command prints. It ends the program if it fails."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def tree(target, edges):
    """The crates that cargo compiles for attachd, as (name, version), each with those that it depends on directly."""
    lines = output("cargo", "tree", "--locked", "--package", "attachd", "--target", target, "--edges", edges, "--prefix", "depth")
    graph, path = {}, []
    for line in lines.splitlines():
        depth, name, version, _ = LINE.fullmatch(line).groups()
        del path[int(depth):]
        graph.setdefault((name, version), set())
        if path:
            graph[path[-1]].add((name, version))
        path.append((name, version))
    return graph


def component(package, linked, checksum):
    """A crate as a component of CycloneDX."""
    name, version = package["name"], package["version"]
    made = {
        "type": "library",
        "bom-ref": reference((name, version)),
        "name": name,
        "version": version,
        "scope": "required" if linked else "excluded",
        "purl": reference((name, version)),
    }
    if package["description"]:
        made["description"] = " ".join(package["description"].split())
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    # `MIT/Apache-2.0` is how licences were written before SPDX expressions.
    made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def reference(crate):
    """The package URL of a crate."""
    name, version = crate
    return f"pkg:cargo/{name}@{version.replace('+', '%2B')}"


def time():
    """When the sources were committed, in UTC."""
    seconds = int(output("git", "log", "-1", "--format=%ct"))
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def document(target):
    """The bill of materials."""
    graph = tree(target, "normal,build")
    linked = tree(target, "normal,no-proc-macro")
    described = output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target)
    packages = {(package["name"], package["version"]): package for package in json.loads(described)["packages"]}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}
    made = {crate: component(packages[crate], crate in linked, checksums[crate]) for crate in sorted(graph)}
    (itself,) = [crate for crate in made if crate[0] == "attachd"]
    application = made.pop(itself) | {"type": "application"}
    compiler = output("rustc", "--version").split()[1]
    content = {
        "metadata": {
            "timestamp": time(),
            "tools": {"components": [{"type": "application", "name": "rustc", "version": compiler}]},
            "component": application,
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": list(made.values()),
        "dependencies": [
            {"ref": reference(crate), "dependsOn": sorted(map(reference, graph[crate]))} for crate in sorted(graph)
        ],
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(content, sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
    } | content


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: deploy/sbom.py OUT [TARGET]")
    target = sys.argv[2] if len(sys.argv) == 3 else "x86_64-unknown-linux-gnu"
    pathlib.Path(sys.argv[1]).write_text(json.dumps(document(target), indent=2) + "\n")


if __name__ == "__main__":
    main()
