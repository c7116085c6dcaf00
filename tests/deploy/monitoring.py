"""Puts a real attachd under a bounded load, lets a real Prometheus scrape it and evaluate the rules, and asks each query of the
dashboard: every one must return data, and every metric that a rule or a query names must exist.

Usage: monitoring.py ATTACHD PROMETHEUS RULES DASHBOARD WORK [RESULTS]. Prints `ok …` or `FAIL …`; writes what the queries returned
to RESULTS, as JSON."""

import concurrent.futures
import contextlib
import http.client
import json
import math
import pathlib
import re
import secrets
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import keyset
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as text

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from ports import free_ports

attachd, prometheus, rules, dashboard, work, *results = sys.argv[1:]
work = pathlib.Path(work)
# How long the load lasts, in seconds: several scrapes and a rate over them.
LOAD = 25
# What Prometheus would add from the pod.
LABELS = {"namespace": "attachd", "pod": "attachd-0"}
# Of the cluster, not of attachd.
FOREIGN = {"up", "kube_cronjob_status_last_successful_time", "kube_pod_container_resource_limits"}


def verdict(name, why=""):
    print(f"FAIL {name}: {why}" if why else f"ok {name}", flush=True)


@contextlib.contextmanager
def process(name, command, environment=None):
    with open(work / f"{name}.log", "wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            yield running
        finally:
            running.terminate()
            running.wait(60)


def key_set():
    """Serves a key set that an issuer might have."""
    key = {"kty": "OKP", "crv": "Ed25519", "kid": "1", "alg": "EdDSA", "use": "sig",
           "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    return keyset.serve([key])


def configure():
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
memory_budget = "8MiB"
max_waiting_uploads = 2
[log]
format = "json"
[shutdown]
delay = "0s"
[auth.keys]
refresh = "1s"
[[auth.issuers]]
issuer = "https://id.example"
audience = ["attachd"]
algorithms = ["HS256"]
hmac_secret_file = "secret"
[[auth.issuers]]
issuer = "https://other.example"
audience = ["attachd"]
algorithms = ["EdDSA"]
jwks_url = "{key_set()}"
""")


def break_one():
    """Lays a folder where the storage has a record: uploads to attachment 77 fail."""
    (work / f"store/clients/1/records/{77:019}").mkdir(parents=True)
    (work / "store/attachd.json").write_text('{"layout":2}\n')


def addresses(running):
    """Where the ports are, from the log."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and running.poll() is None:
        found = {}
        for line in (work / "attachd.log").read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError):
                fields = json.loads(line)["fields"]
                if fields["message"] == "listening":
                    found[fields["port"]] = fields["address"]
        if len(found) == 3:
            return found
        time.sleep(0.1)
    raise SystemExit(f"FAIL attachd starts: {(work / 'attachd.log').read_text()[-500:]}")


def upload(address, token, attachment, body, stop_after=None, path="clients/1"):
    """One upload over REST. With `stop_after` the client goes away after so many bytes. The status, or None."""
    edge = b"----edge"
    head = b'--' + edge + b'\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    whole = head + body + b"\r\n--" + edge + b"--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary={edge.decode()}", "content-length": str(len(whole))}
    if token:
        headers["authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.putrequest("POST", f"/api/v2/{path}/attachments/{attachment}")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(whole if stop_after is None else whole[:stop_after])
        return None if stop_after is not None else connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def load(ports, token):
    """All that a day brings, within LOAD seconds and with at most ten clients at once."""
    end = time.monotonic() + LOAD
    large = secrets.token_bytes(6 << 20)
    (work / "large").write_bytes(large)
    stored = {"rest": 0, "grpc": 0}

    def small(worker):
        count = 0
        while time.monotonic() < end and count < 2000:
            count += 1
            status = upload(ports["rest"], token, worker * 10_000 + count % 50 + 1, secrets.token_bytes(1 << (count % 17)))
            stored["rest"] += status == 201
            time.sleep(0.01)

    def big(worker):
        for count in range(100):
            if time.monotonic() > end:
                return
            stored["rest"] += upload(ports["rest"], token, worker * 10_000 + count, large) == 201

    def grpc(worker):
        for count in range(200):
            if time.monotonic() > end:
                return
            command = [attachd, "upload", str(work / "large"), "--client", "1", "--attachment", str(worker * 10_000 + count),
                       "--to", f"http://{ports['grpc']}", "--token-file", str(work / "token")]
            stored["grpc"] += subprocess.run(command, capture_output=True, timeout=60).returncode == 0

    def wrong(_):
        for count in range(100):
            if time.monotonic() > end:
                return
            upload(ports["rest"], None, 1, b"no token")
            upload(ports["rest"], token + "x", 1, b"a token that does not hold")
            upload(ports["rest"], token, 1, b"another client", path="clients/2")
            upload(ports["rest"], token, "x", b"no id")
            upload(ports["rest"], token, 77, b"the storage fails")
            upload(ports["rest"], token, 2, secrets.token_bytes(100_000), stop_after=50_000)
            time.sleep(0.2)

    with concurrent.futures.ThreadPoolExecutor(10) as clients:
        jobs = [clients.submit(small, 1), clients.submit(small, 2), *(clients.submit(big, worker) for worker in range(3, 8)),
                clients.submit(grpc, 8), clients.submit(grpc, 9), clients.submit(wrong, 10)]
        for job in jobs:
            job.result()
    verdict("the load is stored through both doors", "" if all(stored.values()) else str(stored))


def get(address, path, **parameters):
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    with urllib.request.urlopen(f"http://{address}{path}{query}", timeout=20) as reply:
        return json.load(reply)["data"]


def filled(expression):
    """With the variables of Grafana as they are when all is chosen."""
    for name, value in (("$__rate_interval", "15s"), ("$__range", "60s"), ("$namespace", ".*"), ("$pod", ".*"), ("$door", ".*")):
        expression = expression.replace(name, value)
    return expression


def targets():
    for panel in json.loads(pathlib.Path(dashboard).read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel, target


def ask(address):
    """Each query over the time of the load."""
    now = time.time()
    answers = []
    for panel, target in targets():
        name = f"the panel `{panel['title']}` ({target['refId']}) shows data"
        try:
            data = get(address, "/api/v1/query_range", query=filled(target["expr"]), start=now - LOAD - 5, end=now, step=1)
        except urllib.error.HTTPError as error:
            verdict(name, error.read().decode())
            continue
        answers.append({"panel": panel["id"], "title": panel["title"], "legend": target["legendFormat"],
                        "type": panel["type"], "unit": panel["fieldConfig"]["defaults"].get("unit", "none"), "data": data["result"]})
        values = [float(value) for series in data["result"] for _, value in series["values"]]
        labels = re.findall(r"{{(\w+)}}", target["legendFormat"])
        why = "" if any(map(math.isfinite, values)) else "no data"
        missing = [label for label in labels if any(label not in series["metric"] for series in data["result"])]
        verdict(name, why or (f"series without the label {missing}" if missing and panel["type"] != "heatmap" else ""))
    if results:
        pathlib.Path(results[0]).write_text(json.dumps(answers))


def names(address):
    """Every metric that is named exists; recorded ones too."""
    known = set(get(address, "/api/v1/label/__name__/values")) | FOREIGN
    text = pathlib.Path(rules).read_text()
    expressions = [rule["expr"] for group in get(address, "/api/v1/rules")["groups"] for rule in
                   ({"expr": rule["query"]} for rule in group["rules"])]
    expressions += [filled(target["expr"]) for _, target in targets()]
    named = {name for expression in expressions
             for name in re.findall(r"\b((?:attachd|process|kube)[a-z0-9_]*(?::[a-z0-9_:]+)?|up)\b(?= *[{\[)]| |$)",
                                    re.sub(r'"[^"]*"', '""', expression))}
    missing = sorted(name for name in named if name not in known)
    verdict(f"the {len(named)} metrics that rules and dashboard name exist", ", ".join(missing))
    healthy = [rule for group in get(address, "/api/v1/rules")["groups"] for rule in group["rules"]]
    bad = [f"{rule['name']}: {rule.get('lastError')}" for rule in healthy if rule["health"] != "ok"]
    verdict(f"Prometheus evaluates all {len(healthy)} rules", "; ".join(bad) or ("" if len(healthy) == text.count("expr:") else "not all"))


def formats(address):
    """Both formats are what their own library takes, which for OpenMetrics is strict, and say the same of the same metrics."""
    read = {}
    for name, accept, parse in (("OpenMetrics", "application/openmetrics-text;version=1.0.0", openmetrics), ("text", "text/plain", text)):
        request = urllib.request.Request(f"http://{address}/metrics", headers={"accept": accept})
        why = ""
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                assert reply.headers["content-type"].startswith(accept.split(";")[0]), reply.headers["content-type"]
                families = list(parse.text_string_to_metric_families(reply.read().decode()))
            read[name] = {sample.name for family in families for sample in family.samples}
            why = "" if len(read[name]) > 20 else f"only {len(read[name])} series names"
        except (ValueError, AssertionError) as error:
            why = repr(error)
        verdict(f"the metrics are {name} as its own library reads it", why)
    differ = read.get("OpenMetrics", set()) ^ read.get("text", set())
    verdict("both formats have the same series", ", ".join(sorted(differ)))


configure()
break_one()
token = subprocess.run([attachd, "token", "--config", str(work / "attachd.toml"), "--client", "1", "--scope", "attachments:write",
                        "--ttl", "1h"], check=True, capture_output=True, text=True).stdout.strip()
(work / "token").write_text(token)
with process("attachd", [attachd, "serve", "--config", str(work / "attachd.toml")]) as running:
    ports = addresses(running)
    (work / "prometheus.yml").write_text(json.dumps({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(pathlib.Path(rules).resolve())],
        "scrape_configs": [{"job_name": "attachd", "static_configs": [{"targets": [ports["admin"]], "labels": LABELS}]}],
    }))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [prometheus, f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/tsdb", f"--web.listen-address={address}"]
    with process("prometheus", command) as scraper:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if any(target["health"] == "up" for target in get(address, "/api/v1/targets")["activeTargets"]):
                    break
            time.sleep(0.2)
        else:
            verdict("Prometheus scrapes attachd", (work / "prometheus.log").read_text()[-500:])
        load(ports, token)
        formats(ports["admin"])
        ask(address)
        names(address)
