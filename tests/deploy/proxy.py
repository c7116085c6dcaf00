"""Puts a real nginx in front of a real attachd, set as the Ingresses of a built set tell ingress-nginx to set it, and sends uploads
through it that a proxy would break. Then the same through nginx as it is by itself, which must break them: what the Ingresses set
is what helps.

Usage: proxy.py ATTACHD NGINX SET WORK. Prints `ok …` or `FAIL …`."""

import contextlib
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import time
import urllib.request

from manifest import Set

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from ports import free_ports

attachd, nginx, path, work = sys.argv[1:]
of, work = Set(pathlib.Path(path)), pathlib.Path(work)
work.mkdir()
PREFIX = "nginx.ingress.kubernetes.io/"
CONTENT = os.urandom(5_000_000)


def verdict(name, good, why=""):
    print(f"ok {name}" if good else f"FAIL {name}: {why}", flush=True)


def directives(ingress):
    """What ingress-nginx makes of the annotations, in its template for a location."""
    note = {key.removeprefix(PREFIX): value for key, value in ingress["metadata"]["annotations"].items()}
    kind = "grpc" if note.pop("backend-protocol") == "GRPC" else "proxy"
    known = {
        "proxy-body-size": "client_max_body_size {};",
        "proxy-request-buffering": "proxy_request_buffering {};",
        "proxy-http-version": "proxy_http_version {};",
        "proxy-read-timeout": kind + "_read_timeout {}s;",
        "proxy-send-timeout": kind + "_send_timeout {}s;",
        "proxy-next-upstream": kind + "_next_upstream {};",
    }
    return " ".join(known[key].format(value) for key, value in note.items())


def settings(name):
    (ingress,) = [ingress for ingress in of.all("Ingress") if ingress["metadata"]["name"] == name]
    return directives(ingress)


@contextlib.contextmanager
def running(command, log, ready):
    with open(work / log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + 30
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{log}: {(work / log).read_text()[-500:]}")
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            process.wait(30)


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def in_flight():
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=10) as reply:
            return json.load(reply)["uploads_in_flight"]
    except OSError:
        return None


def rest(port, token, half=None):
    """Uploads over REST, and calls `half` in the middle of the content. The status and the body of the answer."""
    body = b'--e\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + CONTENT + b"\r\n--e--\r\n"
    head = (f"POST /api/v2/clients/1/attachments/1 HTTP/1.1\r\nHost: attachments.example\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: multipart/form-data; boundary=e\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(head.encode() + body[:len(body) // 2])
            if half:
                half()
            connection.sendall(body[len(body) // 2:])
        answer = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                answer += part
    return (answer.split(b" ")[1].decode() if answer else None), answer.partition(b"\r\n\r\n")[2].decode(errors="replace")


def grpc(port, half=None):
    """Uploads over gRPC by curl: one header, fifty chunks, one finish. The gRPC status, or what came instead."""
    def message(data):
        return b"\0" + struct.pack(">I", len(data)) + data

    def chunk(data):
        length, rest = len(data), b""
        while length > 127:
            rest, length = rest + bytes([length & 127 | 128]), length >> 7
        return message(b"\x12" + rest + bytes([length]) + data)

    parts = [message(b"\x0a\x04\x08\x01\x10\x02")]
    parts += [chunk(CONTENT[at:at + 100_000]) for at in range(0, len(CONTENT), 100_000)] + [message(b"\x1a\x00")]
    command = ["curl", "-s", "-v", "--http2-prior-knowledge", "--max-time", "30", "-o", "/dev/null", "-X", "POST", "-T", "-",
               "-H", f"authorization: Bearer {token}", "-H", "content-type: application/grpc", "-H", "te: trailers",
               f"http://127.0.0.1:{port}/attachments.v2.AttachmentService/UploadAttachment"]
    curl = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    with contextlib.suppress(OSError):
        for part in parts[:25]:
            curl.stdin.write(part)
        curl.stdin.flush()
        if half:
            half()
        for part in parts[25:]:
            curl.stdin.write(part)
    said = curl.communicate()[1].decode(errors="replace")
    lines = [line for line in said.splitlines() if line.startswith(("< grpc-status", "< HTTP"))]
    return lines[-1] if lines else said[-200:]


def server(port, says, backend):
    kind = "grpc" if backend == "grpc" else "proxy"
    scheme = "grpc" if backend == "grpc" else "http"
    return (f"server {{ listen 127.0.0.1:{port}{' http2' if kind == 'grpc' else ''}; {says} "
            f"location / {{ {kind}_pass {scheme}://127.0.0.1:{ports[backend]}; }} }}\n")


names = ("rest", "grpc", "set rest", "set grpc", "plain rest", "plain grpc", "held rest", "hasty rest", "hasty grpc")
admin, *numbers = free_ports(len(names) + 1)
ports = dict(zip(names, numbers, strict=True))
hasty = "client_max_body_size 0; proxy_request_buffering off; proxy_http_version 1.1; proxy_read_timeout 1s; grpc_read_timeout 1s;"
(work / "nginx.conf").write_text(f"""
daemon off;
pid {work}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
access_log off;
client_body_temp_path {work}/bodies; proxy_temp_path {work}/answers;
fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
{server(ports["set rest"], settings("attachd-rest"), "rest")}
{server(ports["set grpc"], settings("attachd-grpc"), "grpc")}
{server(ports["plain rest"], "", "rest")}
{server(ports["plain grpc"], "", "grpc")}
{server(ports["held rest"], "client_max_body_size 0;", "rest")}
{server(ports["hasty rest"], hasty, "rest")}
{server(ports["hasty grpc"], hasty, "grpc")}
}}
""")
dev = [attachd, "dev", "--data", f"{work}/data", "--rest", f"127.0.0.1:{ports['rest']}", "--grpc", f"127.0.0.1:{ports['grpc']}",
       "--admin", f"127.0.0.1:{admin}"]
with running(dev, "attachd.log", lambda: in_flight() is not None), \
        running([nginx, "-c", work / "nginx.conf", "-p", work], "nginx.log", lambda: answers(ports["set rest"])):
    token = (work / "data" / "dev-token").read_text()
    seen = []

    def look():
        """Waits a while for the upload to arrive at attachd, and notes whether it did."""
        deadline = time.monotonic() + 2
        while in_flight() == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        seen.append(in_flight() > 0)

    def pause():
        """For longer than the hasty time-out."""
        time.sleep(2.5)

    for door, stored, upload in (("rest", "201", lambda port, half: rest(port, token, half)[0]), ("grpc", "< grpc-status: 0", grpc)):
        said = upload(ports[f"set {door}"], look)
        verdict(f"{door}: 5 MB pass nginx as the Ingress sets it", said == stored, said)
        verdict(f"{door}: they are passed on as they arrive", seen.pop())
        said = upload(ports[f"hasty {door}"], pause)
        verdict(f"{door}: the time-out for the answer does not run while a client sends, or pauses", said == stored, said)

    status, body = rest(ports["set rest"], token + "x")
    verdict("rest: a refusal while the client sends is attachd's own", status == "401" and "JWT token invalid" in body, (status, body))

    # What would be without: each of these must fail.
    status, body = rest(ports["plain rest"], token)
    verdict("nginx by itself refuses 5 MB, not in the envelope", status == "413" and "<html>" in body, (status, body))
    said = grpc(ports["plain grpc"])
    verdict("nginx by itself refuses 5 MB over gRPC", said != "< grpc-status: 0", said)
    rest(ports["held rest"], token, look)
    verdict("nginx by itself holds an upload back until it has all of it", seen == [False], seen)
