"""Reads the dashboard by Grafana's own types and writes it again: what Grafana would not understand is lost or changed on the way.

Usage: grafana.py DASHBOARD. Prints `ok …` or `FAIL …`."""

import json
import pathlib
import re
import sys

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

# Fields that Grafana has and writes itself, and that its types leave out.
BESIDE = {"annotations.list.titleFormat", "templating.list.definition"}


def unread(given, read, at=""):
    """Where something that was given was not read, or was read as something else. Defaults may be added."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            yield from unread(value, read.get(key), f"{at}.{key}".removeprefix("."))
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, (one, other) in enumerate(zip(given, read)):
            yield from unread(one, other, f"{at}[{index}]")
    elif given != read and re.sub(r"\[\d+\]", "", at) not in BESIDE:
        yield f"{at} is {given!r}, read as {read!r}"


def verdict(name, why):
    print(f"FAIL {name}: {why}" if why else f"ok {name}")


plugins.register_default_plugins()
given = json.loads(pathlib.Path(sys.argv[1]).read_text())


def through(given):
    return list(unread(given, json.loads(JSONEncoder().encode(Dashboard.from_json(given)))))


verdict("Grafana's types have all that the dashboard says", "; ".join(through(given)[:5]))
misspelt = json.loads(json.dumps(given))
misspelt["panels"][1]["fieldConfig"]["defaults"]["unitt"] = "bytes"
verdict("a field that they do not have is found", "" if len(through(misspelt)) == 1 else "it is not")
