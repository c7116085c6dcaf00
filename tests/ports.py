"""Ports for servers that are told theirs before they start."""

import random
import socket


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on, each another. They are below those that the system gives to connections (from 32768
    on Linux), one of which could take a port between the look and the start of its server."""
    held = []
    for port in random.sample(range(20000, 32000), 500):
        if len(held) == count:
            break
        one = socket.socket()
        try:
            one.bind(("127.0.0.1", port))
            held.append(one)
        except OSError:
            one.close()
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    if len(ports) < count:
        raise RuntimeError(f"{len(ports)} of {count} ports are free")
    return ports
