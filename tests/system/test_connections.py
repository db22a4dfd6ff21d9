#!/usr/bin/env python3
"""Connections that go, that never end a message, that do not read, that are too many: nobody else pays for them."""
# timeout: 900
import os, resource, signal, socket, struct, subprocess

from support_ports import free_port
from support_server import BIN, PATIENCE, Client, Server, pb, until

MIB = 1 << 20


def greeting():
    ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32), b"\x04" + bytes([len(ready)]) + ready


def raw(server):
    """A connection that has shaken hands as a DEALER."""
    return shake_hands(socket.create_connection(("127.0.0.1", server.port)))


def raw_local(server):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server.endpoint.removeprefix("ipc://"))
    return shake_hands(connection)


def shake_hands(connection):
    connection.settimeout(PATIENCE)
    hello, ready = greeting()
    connection.sendall(hello)
    received = b""
    while len(received) < 64:
        received += connection.recv(64 - len(received))
    connection.sendall(ready)
    return connection


def is_closed(connection):
    """Reads until the other side's end, which has to come."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def counters(server):
    client = server.client()
    values = client.counters()
    client.close()
    return values


def work_of_those_who_have_gone(server):
    """The runtime stands still while the requests come, so all of them are queued."""
    runtime = server.running["runtime"].pid
    for method, tensors, ids in ((pb.FORWARD, 1, b""), (pb.BACKWARD, 2, b""), (pb.BACKWARD, 2, b"sixteen bytes id")):
        here, gone = server.client(), server.client()
        before, updates = counters(server), here.call(pb.INFO, "ffn.0").info.update_count
        os.kill(runtime, signal.SIGSTOP)
        for _ in range(20):
            gone.send(method, "ffn.0", 1, 4, tensors, client_id=ids)
        until(lambda: counters(server)["device.device0.in_flight"] == 20, "all are queued")
        here.send(method, "ffn.0", 1, 4, tensors, client_id=b"of another one.." if ids else b"", request_id=999)
        until(lambda: counters(server)["device.device0.in_flight"] == 21, "the other one is queued")
        gone.close()
        until(lambda: counters(server)["frontend.requests_dropped"] == before["frontend.requests_dropped"] + 20, "the end is seen")
        os.kill(runtime, signal.SIGCONT)
        assert here.receive().status == pb.OK
        if ids:  # none is lost, since it may be asked for again, and none is done twice
            until(lambda: counters(server)["device.device0.tasks"] == before["device.device0.tasks"] + 21, "they are computed after it")
            for request_id in (1, 20):
                again = here.call(method, "ffn.0", 1, 4, tensors, client_id=ids, request_id=request_id)
                assert again.status == pb.OK, again  # its answer was kept
            assert counters(server)["device.device0.tasks"] == before["device.device0.tasks"] + 21
        else:
            assert here.call(pb.FORWARD, "ffn.0", 1).status == pb.OK
            assert counters(server)["device.device0.tasks"] == before["device.device0.tasks"] + 2, "nobody would read it"
        here.close()


def raw_to(server):
    return raw_local(server) if server.endpoint.startswith("ipc") else raw(server)


def a_million_empty_parts(server):
    """It is ended at a number of frames that no request has, not at its last: nobody waits until it was taken apart."""
    before, parts = counters(server)["frontend.closed.large"], raw_to(server)
    try:
        parts.sendall(b"\x01\x00" * 1000000)  # the last is yet to come
    except ConnectionError:
        pass
    assert is_closed(parts)
    parts.close()
    until(lambda: counters(server)["frontend.closed.large"] == before + 1, "it is counted")
    until(lambda: "4096 frames" in server.log("frontend"), "and said")


def most_memory(server, anew=False):
    """Of the frontend, as the system has seen it: since its start, or since it was asked for anew."""
    proc = f"/proc/{server.running['frontend'].pid}"
    if anew:
        try:
            with open(f"{proc}/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass  # then since its start
    with open(f"{proc}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))


def one_endless_message(server):
    for frame in (b"\x01\xff" + b"x" * 255, b"\x01\x00"):  # frames of 255 bytes, and empty ones
        before = counters(server)["frontend.closed.large"]
        endless, block = raw_to(server), frame * (4 * MIB // len(frame))
        most_memory(server, anew=True)
        try:
            for _ in range(20000):  # 80 GB
                endless.sendall(block)
            raise AssertionError("it goes on for ever")
        except ConnectionError:
            pass
        endless.close()
        peak = most_memory(server)
        assert peak < 4 * server.budget, peak
        assert counters(server)["frontend.closed.large"] > before
        if "address" not in os.environ.get("BUILD", ""):  # whose allocator keeps what is freed
            until(lambda: counters(server)["frontend.memory"] < 128 * MIB, "the memory is given back")


def those_who_do_not_read(server):
    reader = server.client()
    idle = []
    for _ in range(8):
        client = server.client()
        idle.append(client)
        for _ in range(16):
            client.send(pb.FORWARD, "wide.0", 64, 16384)  # 4 MiB each way
    until(lambda: counters(server)["frontend.in_flight"] == 0, "all are answered, or dropped")
    assert reader.call(pb.FORWARD, "wide.0", 1, 16384).status == pb.OK
    now = counters(server)
    assert now["frontend.unsent_bytes"] <= server.budget / 4 + 8 * 4 * MIB, now
    assert now["frontend.replies_dropped"] > 0
    for client in idle:
        client.close()
    until(lambda: counters(server)["frontend.unsent_bytes"] == 0, "nothing waits for them any more")
    if "address" not in os.environ.get("BUILD", ""):  # whose allocator keeps what is freed
        until(lambda: counters(server)["frontend.memory"] < 128 * MIB, "the memory is given back")
    reader.close()


def too_many(server):
    client = server.client()
    assert client.call(pb.PING).status == pb.OK
    held = [raw(server) for _ in range(20)]
    for _ in range(180):
        held.append(socket.create_connection(("127.0.0.1", server.port)))
    until(lambda: "are more than the limit of open files allows" in server.log("frontend"), "it is said")
    assert server.client().call(pb.FORWARD, "late.0", 1).status == pb.OK, "segments can still be opened"
    assert client.call(pb.FORWARD, "late.0", 1).status == pb.OK
    before = counters(server)["frontend.accept_failures"]
    for _ in range(20):
        last = counters(server)["frontend.accept_failures"]
    assert last - before < 100, "it goes on failing to accept"
    for connection in held:
        connection.close()


def files(number):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def serve(cases, experts, frontend="", **options):
    number = free_port()
    with Server(experts, frontend, f"tcp://127.0.0.1:{number}") as server:
        server.port = number
        server.start("frontend", **options).start("runtime")
        server.wait_alive()
        for case in cases:
            server.budget = counters(server)["frontend.max_memory"]
            case(server)
            print(case.__name__, flush=True)
        server.stop()


FFN = "{uid: ffn.0, block: ffn, hidden_dim: 4, max_batch_size: 64, optimizer: sgd}"
with Server([FFN]) as server:
    for program in ("frontend", "dht", "http", "runtime"):
        refused = subprocess.run([f"{BIN}/expertd-{program}", "--config", server.config, "--dht-frontend", "none"],
                                 capture_output=True, text=True, timeout=PATIENCE, preexec_fn=files(12))
        assert refused.returncode == 1 and "limit of open files" in refused.stderr, refused
    for few in range(8, 14):
        asked = subprocess.run([f"{BIN}/expertctl", "-e", server.endpoint, "--timeout", "1", "ping", "--json"], capture_output=True,
                               text=True, timeout=PATIENCE, preexec_fn=files(few))
        assert asked.returncode == 10 and "LOCAL_ERROR" in asked.stdout and "Too many open files" in asked.stdout, (few, asked)
serve([work_of_those_who_have_gone, a_million_empty_parts, one_endless_message, those_who_do_not_read],
      [FFN, "{uid: wide.0, block: nop, hidden_dim: 16384, max_batch_size: 64, queue_rows: 512}"], "max_memory: 134217728")
with Server([FFN], "max_memory: 134217728") as server:
    server.start().wait_alive()
    server.budget = counters(server)["frontend.max_memory"]
    for case in (a_million_empty_parts, one_endless_message):
        case(server)
    print("on ipc", flush=True)
    server.stop()
serve([too_many], ["{uid: late.0, block: nop, hidden_dim: 4}"], preexec_fn=files(64))
print("connections: ok")
