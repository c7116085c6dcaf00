#!/usr/bin/env python3
"""Replays an strace of a server into a model of a disk that keeps only what was synced.

usage: replay.py TRACE ROOT

A file keeps the bytes that were written before an fsync of it; a directory keeps the entries that it had at an fsync of it.
At the moment at which each `201` was sent, the record and the content that it names must be on that disk, with all the
directories above them. Then the trace is replayed once more for each kind of sync, without it, and must show a loss: a sync
that nobody misses is not needed, or the model does not look. Exits 1 with what was lost.
"""

import json
import os
import re
import sys

LINE = re.compile(r"^(\d+) +(.*)$")
UNFINISHED = re.compile(r"^(.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+|\?)(.*)$", re.S)
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
FD = re.compile(r"^(?:AT_FDCWD|\d+)<([^>]*)>")
CREATED = re.compile(r"HTTP/1\.1 201 .*location: /api/v2/clients/(\d+)/attachments/(\d+)\r\n", re.I | re.S)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", '"': '"', "\\": "\\"}


class Lost(Exception):
    pass


class Node:
    """A file or directory: as a running system sees it, and as it is after a power cut."""

    def __init__(self, directory):
        self.directory = directory
        self.live = {}
        self.durable = {}
        self.data = {}
        self.length = 0
        self.writes = 0
        self.synced = None


def unescape(text):
    def one(match):
        body = match.group(1)
        if body[0] in "01234567":
            return chr(int(body, 8))
        if body[0] == "x":
            return chr(int(body[1:], 16))
        return ESCAPES.get(body[0], body)

    return re.sub(r"\\([0-7]{1,3}|x[0-9a-f]{2}|.)", one, text)


class Disk:
    def __init__(self, without=None):
        self.top = Node(True)
        self.without = without
        self.kinds = set()
        self.checked = 0

    def find(self, path, existing=True):
        """The node at a path. What the trace did not create was there before, and durable."""
        node = self.top
        for name in [name for name in path.split("/") if name]:
            if name not in node.live:
                if not existing:
                    return None
                node.live[name] = node.durable[name] = Node(True)
            node = node.live[name]
        return node

    def parent(self, path):
        return self.find(os.path.dirname(path)), os.path.basename(path)

    def create(self, path, directory):
        parent, name = self.parent(path)
        parent.live[name] = Node(directory)

    def rename(self, old, new):
        parent, name = self.parent(old)
        node = parent.live.pop(name)
        target, called = self.parent(new)
        target.live[called] = node

    def remove(self, path):
        parent, name = self.parent(path)
        parent.live.pop(name, None)

    def kind(self, path, root):
        """What is synced, without its ids."""
        if path == root:
            return "the root"
        if not path.startswith(root + "/"):
            return "above the root" if root.startswith(path.rstrip("/") + "/") else None
        below = path[len(root) + 1:]
        if below.startswith(".attachd-tmp/"):
            name = os.path.basename(below)
            if name == "attachd.json":
                return "a temporary marker"
            return "a temporary record" if re.search(r"\.\d{19}$", name) else "a temporary content"
        return re.sub(r"\d+", "N", below)

    def check(self, root, client, attachment):
        """Whether the record and its content are on the disk as it is after a power cut."""

        def walk(path):
            node = self.top
            for name in [name for name in path.split("/") if name]:
                if name not in node.durable:
                    raise Lost(f"{path}: the entry `{name}` is not durable")
                node = node.durable[name]
            if node.synced != node.writes:
                raise Lost(f"{path}: its bytes are not durable")
            return node

        walk(f"{root}/attachd.json")
        attachment = f"{int(attachment):019}"
        path = f"{root}/clients/{client}/records/{attachment}"
        record = walk(path)
        if record is not self.find(path):
            raise Lost(f"{path}: the record that stands is not the durable one")
        line = "".join(record.data[offset] for offset in sorted(record.data)).split("\n", 1)[0]
        content = json.loads(line)["content"]
        behind = record.length - len(line) - 1
        folder = f"{root}/clients/{client}/content/{attachment}"
        names = [f"{content['upload_id']}.{segment['number']}" for segment in content["segments"]]
        length = behind + sum(walk(f"{folder}/{name}").length for name in names)
        if length != content["size"]:
            raise Lost(f"{path}: {length} bytes of {content['size']}")
        self.checked += 1


def calls(trace):
    """The system calls, each as ("begin", id, call) and ("end", id, call, result), in the order of the trace."""
    begun = {}
    number = 0
    with open(trace, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            matched = LINE.match(line.rstrip("\n"))
            if not matched:
                continue
            pid, text = matched.groups()
            resumed = RESUMED.match(text)
            unfinished = UNFINISHED.match(text)
            if resumed:
                if pid not in begun:
                    continue
                call, start = begun.pop(pid)
                text = start + resumed.group(2)
            else:
                number += 1
                call = number
                start = unfinished.group(1) if unfinished else text
                yield "begin", call, start, None
                if unfinished:
                    begun[pid] = (call, start)
                    continue
            done = CALL.match(text)
            if done and done.group(3) != "?":
                yield "end", call, text, done


def absolute(arguments):
    """The paths of a call's arguments, each made absolute by the directory that it is relative to."""
    return [os.path.join(base or "/", unescape(path)) for base, path in PATH.findall(arguments)]


def replay(trace, root, without=None):
    disk = Disk(without)
    syncing = {}
    for moment, call, text, done in calls(trace):
        name = text.split("(", 1)[0]
        if moment == "begin":
            if name in ("sendto", "sendmsg", "write", "writev") and "HTTP/1.1 201" in text:
                reply = "".join(unescape(part) for part in STRING.findall(text))
                created = CREATED.search(reply)
                if not created:
                    raise SystemExit(f"a reply that was cut short: {reply[:200]!r}")
                disk.check(root, *created.groups())
            elif name in ("fsync", "fdatasync"):
                path = FD.match(text.split("(", 1)[1]).group(1)
                node = disk.find(path)
                syncing[call] = (path, node, dict(node.live), node.writes)
            continue
        arguments, result = done.group(2), int(done.group(3))
        if result < 0:
            syncing.pop(call, None)
            continue
        if name in ("fsync", "fdatasync"):
            path, node, live, writes = syncing.pop(call)
            kind = disk.kind(path, root)
            disk.kinds.add(kind)
            if kind is not None and kind == without:
                continue
            # Only what was there when it began is durable for certain.
            node.durable, node.synced = live, writes
        elif name in ("mkdir", "mkdirat"):
            disk.create(absolute(arguments)[-1], True)
        elif name == "openat":
            path = absolute(arguments)[0]
            if "O_CREAT" in arguments and disk.find(path, False) is None:
                disk.create(path, False)
        elif name in ("write", "writev", "pwrite64"):
            path = FD.match(arguments)
            node = path and path.group(1).startswith(root) and disk.find(path.group(1), False)
            if node:
                offset = int(arguments.rsplit(", ", 1)[1]) if name == "pwrite64" else node.length
                node.data[offset] = "".join(unescape(part) for part in STRING.findall(arguments))
                node.length = max(node.length, offset + result)
                node.writes += 1
                if node.synced is None:
                    node.synced = 0
        elif name in ("rename", "renameat", "renameat2"):
            disk.rename(*absolute(arguments)[:2])
        elif name in ("unlink", "unlinkat"):
            disk.remove(absolute(arguments)[0])
        elif name == "linkat":
            raise SystemExit("linkat is not in the model")
    return disk


def main():
    trace, root = sys.argv[1], os.path.realpath(sys.argv[2])
    try:
        disk = replay(trace, root)
    except Lost as lost:
        raise SystemExit(f"a power cut after the reply would lose {lost}") from None
    if not disk.checked:
        raise SystemExit("the trace holds no reply of 201")
    needed = sorted(kind for kind in disk.kinds if kind)
    for kind in needed:
        try:
            replay(trace, root, kind)
        except Lost as lost:
            print(f"needed: the sync of {kind}: {lost}")
        else:
            raise SystemExit(f"nothing is lost without the sync of {kind}")
    print(f"{disk.checked} replies, each of them durable; {len(needed)} kinds of sync, each of them needed")


if __name__ == "__main__":
    main()
