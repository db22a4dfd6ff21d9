#!/usr/bin/python3
"""Messages without end, to the port at which other directories ask, which strangers reach, and to that for look-ups: ZeroMQ
hands on no message before its last frame, and keeps the others; so whoever sends such a one is cut short."""
import resource
import struct

from support_dht import *

MIB = 1 << 20


def shake_hands(port, kind):
    """A connection to a ROUTER, as ZeroMQ would make it."""
    ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(PATIENCE)
    connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    received = b""
    while len(received) < 64:
        received += connection.recv(64 - len(received))
    connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
    return connection


def most_memory(dht):
    with open(f"/proc/{dht.process.pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))


def test_a_message_without_end_is_cut_short():
    frontend = Frontend(["ffn.0.0"])
    asked = free_port()
    dht = Dht(frontend=frontend, dht_tcp_port=asked, expiration=60)
    until(lambda: dht.counter("experts_alive") == 1, "it publishes")
    before, ended = most_memory(dht), 0
    if "address" not in BUILD and "thread" not in BUILD:  # sanitizers take terabytes of it
        with open(f"/proc/{dht.process.pid}/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.prlimit(dht.process.pid, resource.RLIMIT_AS, (size + 1024 * MIB,) * 2)  # if it fails, it alone does
    for port in (asked, int(dht.listen.rsplit(":", 1)[1])):
        for frame in (b"\x01\x00", b"\x01\xff" + b"x" * 255):
            endless, block = shake_hands(port, b"DEALER"), frame * (4 * MIB // len(frame))
            try:
                for _ in range(1000):  # 4 GB, of empty frames a hundred times as much in memory
                    endless.sendall(block)
                raise AssertionError("it goes on for ever")
            except ConnectionError:
                pass
            endless.close()
            ended += 1
            until(lambda: dht.counter("closed_large") == ended, "it is counted")
    expect(most_memory(dht) - before < 128 * MIB, f"memory: {before} bytes before, {most_memory(dht)} at most")
    expect(dht.resolve("ffn.0.0") == [frontend.endpoint], "the others notice nothing")
    frontend.stop()


if __name__ == "__main__":
    run([test_a_message_without_end_is_cut_short])
