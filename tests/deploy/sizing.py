"""Measures what docs/how-to/sizing.md says of sizing: the memory and CPU of a server by its budget and by how many upload at once.

Usage: sizing.py ATTACHD DIRECTORY, with DIRECTORY on the disk that is to be measured. Each cell starts a server of its own; the
clients are curl and `attachd upload`, on the same cores. Prints a table in Markdown. It is run by hand, on a quiet machine."""

import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import time

attachd, directory = sys.argv[1:]
BUDGETS = ["64MiB", "256MiB", "1GiB"]
# How many upload at once, and the bytes of each: a GiB in all.
CLIENTS = [(4, 256 << 20), (64, 16 << 20), (256, 4 << 20)]


def configure(work, budget):
    (work / "store").mkdir(exist_ok=True)
    (work / "secret").write_text(secrets.token_hex(32))
    (work / "attachd.toml").write_text(f"""
[rest]
listen = "127.0.0.1:0"
[grpc]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[storage]
service = "fs"
[storage.options]
root = "{work}/store"
[attachments]
on_unknown = "create"
[limits]
memory_budget = "{budget}"
[log]
format = "json"
[shutdown]
delay = "0s"
[[auth.issuers]]
issuer = "https://id.example"
audience = ["attachd"]
algorithms = ["HS256"]
hmac_secret_file = "secret"
""")


def addresses(log):
    found = {}
    while len(found) < 3:
        time.sleep(0.05)
        for line in log.read_text().splitlines():
            fields = json.loads(line)["fields"]
            if fields["message"] == "listening":
                found[fields["port"]] = fields["address"]
    return found


def cell(budget, count, size, door):
    """One GiB, or so, through a server of its own."""
    work = pathlib.Path(tempfile.mkdtemp(dir=directory))
    try:
        configure(work, budget)
        (work / "file").write_bytes(secrets.token_bytes(1 << 20) * (size >> 20))
        token = subprocess.run([attachd, "token", "--config", work / "attachd.toml", "--client", "1", "--scope", "attachments:write",
                                "--ttl", "1h"], check=True, capture_output=True, text=True).stdout.strip()
        (work / "token").write_text(token)
        with open(work / "log", "w") as log:
            server = subprocess.Popen([attachd, "serve", "--config", work / "attachd.toml"], stdout=log, stderr=log)
        ports = addresses(work / "log")

        def command(number):
            if door == "rest":
                return ["curl", "-s", "-f", "-o", "/dev/null", "-H", f"Authorization: Bearer {token}", "-F", f"file=@{work}/file",
                        f"http://{ports['rest']}/api/v2/clients/1/attachments/{number}"]
            return [attachd, "upload", work / "file", "--client", "1", "--attachment", str(number), "--to", f"http://{ports['grpc']}",
                    "--token-file", work / "token"]

        idle = rss(server.pid, "VmRSS")
        started = time.monotonic()
        clients = [subprocess.Popen(command(number), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for number in range(1, count + 1)]
        refused = sum(client.wait(120) != 0 for client in clients)
        elapsed = time.monotonic() - started
        ticks = pathlib.Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()
        cpu = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
        peak = rss(server.pid, "VmHWM")
        server.terminate()
        server.wait(60)
        gib = (count - refused) * size / 2**30
        print(f"| {budget} | {door} | {count} × {size >> 20} MiB | {idle} | {peak} | {gib * 1024 / elapsed:.0f} | {cpu / gib:.2f} | {refused} |",
              flush=True)
    finally:
        shutil.rmtree(work)


def rss(pid, field):
    """In MiB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) >> 10
    raise LookupError(field)


print("| budget | door | uploads at once | idle RSS, MiB | peak RSS, MiB | MiB/s | CPU s/GiB | refused |")
print("|---|---|---|---|---|---|---|---|")
for budget in BUDGETS:
    for door in ("rest", "grpc"):
        for count, size in CLIENTS:
            cell(budget, count, size, door)
