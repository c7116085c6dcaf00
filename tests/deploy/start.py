"""Starts the program as the pod of a built set starts it, at the paths and on the ports of the pod, and asks of it what a kubelet,
Prometheus and a proxy ask: the probes, the metrics, a request at each route. Then ends it as a kubelet does.

It runs in a network and mounts of its own (unshare --net --mount), where ports and paths are free. What is not there is put in
place: storage in a folder instead of a bucket, keys over HTTP instead of an issuer's, a certificate instead of cert-manager's.
Usage: start.py ATTACHD SET, as root. Prints `ok …` or `FAIL …`."""

import base64
import fcntl
import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

import keyset
from manifest import Set

attachd, path = sys.argv[1:]
of = Set(pathlib.Path(path))
pod = of.server()
problems = []


def loopback():
    """Takes the loopback device up; it is down in a new network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", 0x1 | 0x40)
        fcntl.ioctl(any_socket, 0x8914, request + bytes(40 - len(request)))


def key_set():
    """Serves the public key of a new RSA key pair as a JWKS, and returns its address."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["openssl", "genrsa", "-out", f"{folder}/key", "2048"], check=True, capture_output=True)
        shown = subprocess.run(["openssl", "rsa", "-in", f"{folder}/key", "-noout", "-modulus"], check=True, capture_output=True)
    modulus = bytes.fromhex(shown.stdout.decode().strip().removeprefix("Modulus="))
    text = base64.urlsafe_b64encode(modulus).rstrip(b"=").decode()
    return keyset.serve([{"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": text, "e": "AQAB"}])


def surroundings():
    """Lays the files of the pod where it has them, and returns its variables."""
    for mount in ("/etc", "/var/lib"):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], check=True)
    for name, text in pod.files():
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(name).write_text(text)
    for mount in pod.container["volumeMounts"]:
        pathlib.Path(mount["mountPath"]).mkdir(parents=True, exist_ok=True)
        if mount["name"] == "tls":
            folder = mount["mountPath"]
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                 "-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt", "-subj", "/CN=attachd",
                 "-addext", "subjectAltName=DNS:attachd-rest.attachd.svc", "-config", "/dev/null"],
                check=True, capture_output=True)
            pathlib.Path(folder, "ca.crt").write_bytes(pathlib.Path(folder, "tls.crt").read_bytes())
    variables = pod.environment()
    if variables.get("ATTACHD_STORAGE__SERVICE") != "fs":
        variables = {key: value for key, value in variables.items() if not key.startswith("ATTACHD_STORAGE__")}
        pathlib.Path("/var/lib/attachd").mkdir(parents=True, exist_ok=True)
        variables |= {"ATTACHD_STORAGE__SERVICE": "fs", "ATTACHD_STORAGE__OPTIONS__ROOT": "/var/lib/attachd"}
    return variables | {
        "ATTACHD_AUTH__ISSUERS__0__DISCOVERY": "false",
        "ATTACHD_AUTH__ISSUERS__0__JWKS_URL": key_set(),
    }


def ask(port, target, method="GET", tls=False):
    """The status and the body of one request."""
    if tls:
        context = ssl.create_default_context(cafile="/etc/attachd-tls/tls.crt")
        context.check_hostname = False
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, target)
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def probe(kind):
    """Asks as the kubelet does, and expects the answer within the times of the probe."""
    rule = pod.container[f"{kind}Probe"]
    port = pod.ports()[rule["httpGet"]["port"]]
    said = "nothing"
    for _ in range(rule.get("failureThreshold", 3)):
        try:
            said = ask(port, rule["httpGet"]["path"])
            if 200 <= said[0] < 400:
                return
        except OSError as error:
            said = str(error)
        time.sleep(rule.get("periodSeconds", 10))
    problems.append(f"the {kind} probe says {said}")


def routes():
    """What a proxy sends on reaches a route: without a token it is 401 in the envelope."""
    tls = of.get("Service", "attachd-rest")["spec"]["ports"][0]["appProtocol"] == "https"
    paths = [match["path"]["value"] for route in of.all("HTTPRoute") for rule in route["spec"]["rules"] for match in rule["matches"]]
    for ingress in of.all("Ingress"):
        for rule in ingress["spec"]["rules"]:
            paths += [at["path"] for at in rule["http"]["paths"] if at["backend"]["service"]["name"] == "attachd-rest"]
    for prefix in paths or ["/api/v2/"]:
        status, body = ask(pod.ports()["rest"], f"{prefix}clients/1/attachments/1", "POST", tls)
        if status != 401 or json.loads(body)["details"] != "JWT token not found":
            problems.append(f"{prefix} leads to {status} {body}")


loopback()
environment = {"PATH": os.environ["PATH"]} | surroundings()
process = subprocess.Popen([attachd, *pod.container["args"]], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
said = []
reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
reader.start()
try:
    for kind in ("startup", "liveness", "readiness"):
        probe(kind)
    if process.poll() is None:
        for port in pod.ports().values():
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        for monitor in of.all("ServiceMonitor"):
            for endpoint in monitor["spec"]["endpoints"]:
                status, body = ask(pod.ports()[endpoint["port"]], endpoint["path"])
                if status != 200 or "attachd_build_info" not in body:
                    problems.append(f"{endpoint['path']} answers {status}")
        routes()
except OSError as error:
    problems.append(str(error))
finally:
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(pod.spec["terminationGracePeriodSeconds"])
    except subprocess.TimeoutExpired:
        process.kill()
        status = "none within the termination grace"
    if status != 0:
        problems.append(f"exit status {status}")
if problems:
    reader.join(5)
    problems.append(f"it said: {b' '.join(said[-5:]).decode(errors='replace')}")
print(f"FAIL {of.name}: it runs as its pod: {'; '.join(problems)}" if problems else f"ok {of.name}: it runs as its pod")
