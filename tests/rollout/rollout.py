"""Restarts two replicas in turn behind a proxy while uploads go through both doors, and counts what became of them."""

import hashlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / ".env" / "stubs"), str(Path(__file__).resolve().parents[1])]

import grpc
from attachments.v2 import attachments_pb2 as pb
from attachments.v2 import attachments_pb2_grpc as rpc
from ports import free_ports

HERE = Path(__file__).resolve().parent
ATTACHD = sys.argv[1]
CLIENT = 42
RESTARTS = 6  # of one replica or the other, in turn, behind each proxy
REST_CLIENTS, GRPC_CLIENTS = 5, 5
CALLER = "127.0.0.9"  # where the uploads come from of which the audit trail is looked at
CALLED = (1_000_001, 1_000_002)  # and what they go to, over REST and over gRPC
SECRET = "0123456789abcdef0123456789abcdef"

passed = failed = 0


def verdict(name, why):
    """Counts a check, which holds where there is nothing to say against it."""
    global passed, failed
    if why:
        failed += 1
        print(f"FAIL {name}: {why}")
    else:
        passed += 1
        print(f"ok {name}")


def wait_until(what, holds, seconds=30):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"it never came to be that {what}")
        time.sleep(0.05)


class Replica:
    """One attachd on ports of its own."""

    def __init__(self, name, work, root):
        self.name, self.work = name, work
        self.rest, self.grpc, self.admin = free_ports(3)
        self.config = work / f"{name}.toml"
        self.config.write_text(
            f"""
[rest]
listen = "127.0.0.1:{self.rest}"
trusted_proxies = ["127.0.0.1"]
[grpc]
listen = "127.0.0.1:{self.grpc}"
trusted_proxies = ["127.0.0.1"]
[admin]
listen = "127.0.0.1:{self.admin}"
[storage]
service = "fs"
[storage.options]
root = "{root}"
[attachments]
on_unknown = "create"
[[auth.issuers]]
issuer = "https://id.example"
audience = ["attachd"]
algorithms = ["HS256"]
hmac_secret_file = "{work}/secret"
[log]
format = "json"
[shutdown]
delay = "2s"
grace = "20s"
"""
        )
        self.start()

    def start(self):
        with open(self.work / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen([ATTACHD, "serve", "--config", self.config], stderr=log)
        wait_until(f"{self.name} is ready", self.ready)

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5) as reply:
                return reply.status == 200
        except OSError:
            return False

    def end(self):
        """Asks it to end, and returns its exit code and how long that took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60), time.monotonic() - began


class Load:
    """Uploads through the proxy until they are told to stop, and what became of each."""

    def __init__(self, rest, grpc_port, token):
        self.rest, self.grpc, self.token = rest, grpc_port, token
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.next_id = 0
        self.started = 0
        self.retried = 0
        self.acknowledged = {}
        self.refused, self.cut = [], []
        self.threads = [threading.Thread(target=self.run, args=(self.over_rest, seed)) for seed in range(REST_CLIENTS)]
        self.threads += [
            threading.Thread(target=self.run, args=(self.over_grpc, 100 + seed)) for seed in range(GRPC_CLIENTS)
        ]
        for thread in self.threads:
            thread.start()

    def run(self, upload, seed):
        chance = random.Random(seed)
        state = {}
        while not self.stop.is_set():
            with self.lock:
                self.next_id += 1
                attachment = self.next_id
                self.started += 1
            content = chance.randbytes(chance.choice([1, 1000, 100_000, 500_000]))
            # One in three takes seconds, so that it is in flight when a replica is told to end.
            pause = chance.choice([0, 0, 3.0]) / 20
            for attempt in range(20):
                outcome, why = upload(state, attachment, content, pause)
                with self.lock:
                    if outcome == "acknowledged":
                        self.acknowledged[attachment] = hashlib.sha256(content).hexdigest()
                        break
                    (self.refused if outcome == "refused" else self.cut).append(f"{attachment}: {why}")
                    self.retried += 1
                time.sleep(0.2)
        if "connection" in state:
            state["connection"].close()

    @staticmethod
    def pieces(content, pause):
        size = max(1, len(content) // 20)
        for at in range(0, len(content), size):
            if pause:
                time.sleep(pause)
            yield content[at : at + size]

    def over_rest(self, state, attachment, content, pause):
        boundary = "a-boundary-of-the-rollout"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'.encode()
        tail = f"\r\n--{boundary}--\r\n".encode()

        def body():
            yield head
            yield from self.pieces(content, pause)
            yield tail

        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + len(content) + len(tail)),
        }
        # Connections to the proxy are kept, as an honest client keeps them.
        connection = state.setdefault("connection", http.client.HTTPConnection("127.0.0.1", self.rest, timeout=60))
        try:
            connection.request("POST", f"/api/v2/clients/{CLIENT}/attachments/{attachment}", body(), headers)
            reply = connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return "cut", repr(error)
        if reply.status == 201:
            return "acknowledged", ""
        return "refused", f"{reply.status} {text[:200]!r}"

    def over_grpc(self, state, attachment, content, pause):
        channel = state.setdefault("channel", grpc.insecure_channel(f"127.0.0.1:{self.grpc}"))

        def messages():
            header = pb.UploadHeader(client_id=CLIENT, attachment_id=attachment, filename="a.bin")
            yield pb.UploadAttachmentRequest(header=header)
            for piece in self.pieces(content, pause):
                yield pb.UploadAttachmentRequest(chunk=piece)
            yield pb.UploadAttachmentRequest(finish=pb.UploadFinish(sha256=hashlib.sha256(content).digest()))

        try:
            metadata = [("authorization", f"Bearer {self.token}")]
            stored = rpc.AttachmentServiceStub(channel).UploadAttachment(messages(), metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            return "refused", f"{error.code().name} {error.details()}"
        if stored.attachment.sha256 != hashlib.sha256(content).digest():
            return "refused", "another digest than that of what was sent"
        return "acknowledged", ""

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(timeout=120)


def lost(root, acknowledged):
    """The uploads that were acknowledged and are not there, byte for byte, as their records say."""
    missing = []
    for attachment, digest in acknowledged.items():
        try:
            line, behind = (root / f"clients/{CLIENT}/records/{attachment:019}").read_bytes().split(b"\n", 1)
            record = json.loads(line)["content"]
            folder = root / f"clients/{CLIENT}/content/{attachment:019}"
            names = [f"{record['upload_id']}.{segment['number']}" for segment in record["segments"]]
            content = b"".join([behind] + [(folder / name).read_bytes() for name in names])
        except (OSError, KeyError, ValueError) as error:
            missing.append(f"{attachment}: {error!r}")
            continue
        if record["sha256"] != digest or hashlib.sha256(content).hexdigest() != digest:
            missing.append(f"{attachment}: other bytes")
    return missing


def callers(replicas, load):
    """The addresses that the audit trail has for an upload through each door from an address of its own, whatever it claims."""
    content, claim = b"x", "192.0.2.1"
    connection = http.client.HTTPConnection("127.0.0.1", load.rest, timeout=60, source_address=(CALLER, 0))
    form = b'--e\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nx\r\n--e--\r\n'
    headers = {
        "Authorization": f"Bearer {load.token}",
        "Content-Type": "multipart/form-data; boundary=e",
        "X-Forwarded-For": claim,
    }
    connection.request("POST", f"/api/v2/clients/{CLIENT}/attachments/{CALLED[0]}", form, headers)
    connection.getresponse().read()
    connection.close()
    # A channel of Python's binds to no address; curl does.
    def message(data):
        data = data.SerializeToString()
        return b"\0" + len(data).to_bytes(4, "big") + data

    request = pb.UploadAttachmentRequest
    header = pb.UploadHeader(client_id=CLIENT, attachment_id=CALLED[1], filename="f")
    body = b"".join(map(message, [request(header=header), request(chunk=content), request(finish=pb.UploadFinish())]))
    subprocess.run(
        ["curl", "-sS", "--http2-prior-knowledge", "--max-time", "30", "--interface", CALLER, "--data-binary", "@-",
         "-H", f"authorization: Bearer {load.token}", "-H", "content-type: application/grpc", "-H", "te: trailers",
         "-H", f"x-forwarded-for: {claim}",
         f"http://127.0.0.1:{load.grpc}/attachments.v2.AttachmentService/UploadAttachment"],
        input=body, check=True, capture_output=True,
    )
    found = {}
    for replica in replicas:
        for line in (replica.work / f"{replica.name}.log").read_text().splitlines():
            entry = json.loads(line)
            if entry.get("target") == "attachd::audit":
                fields = entry.get("fields", entry)
                found[fields.get("attachment_id")] = fields.get("from")
    return [found.get(attachment) for attachment in CALLED]


def token(config):
    """A token for the client of the load."""
    arguments = ["token", "--config", config, "--client", str(CLIENT), "--scope", "attachments:write", "--ttl", "1h"]
    return subprocess.run([ATTACHD, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def proxied(name, command, template, target, work):
    """A rollout behind one proxy."""
    work = work / name
    root = work / "root"
    root.mkdir(parents=True)
    (work / "secret").write_text(SECRET)
    replicas, proxy, load = [], None, None
    try:
        replicas = [Replica(letter, work, root) for letter in "ab"]
        rest, grpc_port = free_ports(2)
        ports = {"rest": rest, "grpc": grpc_port, "work": str(work)}
        for replica in replicas:
            for port in ("rest", "grpc", "admin"):
                ports[f"{replica.name}_{port}"] = getattr(replica, port)
        text = (HERE / template).read_text()
        for key, value in ports.items():
            text = text.replace("{" + key + "}", str(value))
        (work / target).write_text(text)
        with open(work / "proxy.log", "wb") as log:
            proxy = subprocess.Popen([*command, work / target], stdout=log, stderr=log)

        def passes():
            try:
                with socket.create_connection(("127.0.0.1", rest), timeout=2):
                    return True
            except OSError:
                return False

        wait_until(f"{name} listens", passes)
        time.sleep(1)  # HAProxy and Envoy ask each replica whether it is ready before they send anything
        load = Load(rest, grpc_port, token(replicas[0].config))
        codes, times = [], []
        for restart in range(RESTARTS):
            replica = replicas[restart % 2]
            # The other one has to be known to be ready again, as a Deployment waits for it (minReadySeconds).
            time.sleep(2)
            code, seconds = replica.end()
            codes.append(code)
            times.append(round(seconds, 1))
            replica.start()
        time.sleep(1)
        load.finish()
        gone = lost(root, load.acknowledged)
        addresses = callers(replicas, load)
        print(
            f"{name}: {RESTARTS} restarts (each ended within {max(times)} s), {load.started} uploads started, "
            f"{len(load.acknowledged)} acknowledged, {len(gone)} lost, {load.retried} retried "
            f"({len(load.refused)} refused, {len(load.cut)} cut)"
        )
        verdict(f"{name}: no upload that was acknowledged is lost", "; ".join(gone[:5]))
        verdict(f"{name}: none was refused", "; ".join(load.refused[:5]))
        verdict(f"{name}: none was cut", "; ".join(load.cut[:5]))
        verdict(
            f"{name}: the audit trail has the address of who called it, over REST and gRPC",
            "" if addresses == [CALLER, CALLER] else str(addresses),
        )
        verdict(f"{name}: each replica drained and ended with 0", "" if set(codes) == {0} else str(codes))
        drained = sum(
            (work / f"{replica.name}.log").read_text().count('"message":"drained"') for replica in replicas
        )
        verdict(f"{name}: each drained within its grace", "" if drained == RESTARTS else f"{drained} of {RESTARTS}")
        enough = len(load.acknowledged) >= 10 * RESTARTS and load.started == len(load.acknowledged)
        verdict(f"{name}: there was a load, and all of it was acknowledged", "" if enough else "see the figures")
        if load.refused or load.cut:
            for log in (work / "proxy.log", work / "nginx.log"):
                lines = log.read_text().splitlines() if log.exists() else []
                print("\n".join([line for line in lines if "[info]" not in line][-40:]))
    finally:
        if load:
            load.finish()
        for process in [proxy, *(replica.process for replica in replicas)]:
            if process and process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.chmod(work, 0o755)

        for name, command, template, target in [
            ("haproxy", ["haproxy", "-db", "-f"], "haproxy.cfg", "haproxy.cfg"),
            ("nginx", ["nginx", "-c"], "nginx.conf", "nginx.conf"),
            ("envoy", [HERE.parent / ".env" / "rollout" / "bin" / "envoy", "--use-dynamic-base-id", "-l", "warning", "-c"],
             "envoy.yaml", "envoy.yaml"),
        ]:
            try:
                proxied(name, command, template, target, work)
            except Exception as error:
                verdict(f"{name}: the rollout ran to its end", repr(error))
                log = work / name / "proxy.log"
                print(log.read_text()[-1000:] if log.exists() else "")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
