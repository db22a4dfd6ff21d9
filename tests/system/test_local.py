#!/usr/bin/env python3
"""Clients on the same host that break the rules of shared memory (proto/PROTOCOL.md, "On the same host"), against the real
programs: each hurts itself alone, and a good client beside them is served all the time."""
# timeout: 900
import array
import fcntl
import mmap
import os
import random
import re
import socket
import struct
import threading

from support_server import PATIENCE, Server, pb, until

F_ADD_SEALS, SHRINK = 1033, 2
SIZE = 1 << 20


class Raw:
    """One that speaks the format by itself. `bytes`: of its memory; hello=False: it says nothing yet."""

    def __init__(self, path, size=SIZE, seals=SHRINK, hello=True, announced=None, descriptors=1):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        welcome = self.socket.recv(1 << 16)
        magic, version, self.slots, self.region_max, self.instance = struct.unpack("<8sIIQ16s", welcome)
        assert magic == b"expertdL" and version == 1
        self.fd = os.memfd_create("raw", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        if seals:
            fcntl.fcntl(self.fd, F_ADD_SEALS, seals)
        self.memory = mmap.mmap(self.fd, size)
        self.records = []
        if hello:
            self.hello(announced or size, descriptors)

    def hello(self, announced, descriptors=1):
        data = struct.pack("<8sIIQ", b"expertdL", 1, 0, announced)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self.fd] * descriptors))] if descriptors else []
        self.socket.sendmsg([data], rights)

    def record(self, slot, header, spans=(), room=(0, 0)):
        size = (32 + 16 * len(spans) + len(header) + 7) // 8 * 8
        data = struct.pack("<IIIIQQ", size, len(header), slot, len(spans), *room)
        return (data + b"".join(struct.pack("<QQ", *s) for s in spans) + header).ljust(size, b"\0")

    def send(self, data):
        self.socket.send(data)

    def forward(self, slot, uid="nop.0", rows=1, columns=4, at=0, room=(65536, 65536), method=pb.FORWARD, tensors=1, **fields):
        header = pb.RequestHeader(version=1, request_id=slot + 1, method=method, uid=uid, **fields)
        for _ in range(tensors):
            header.tensors.add(dtype=pb.FLOAT32, shape=[rows, columns])
        self.send(self.record(slot, header.SerializeToString(), [(at, rows * columns * 4)] * tensors, room))

    def receive(self):
        """One reply: slot, header or None, spans, wanted. None: the server has closed it."""
        while not self.records:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            while data:
                size, header, slot, tensors, wanted = struct.unpack_from("<IIIIQ", data)
                spans = [struct.unpack_from("<QQ", data, 24 + 16 * i) for i in range(tensors)]
                at = 24 + 16 * tensors
                parsed = pb.ReplyHeader.FromString(data[at:at + header]) if header else None
                self.records.append((slot, parsed, spans, wanted))
                data = data[size:]
        return self.records.pop(0)

    def ready(self):
        reply = self.receive()
        return reply is not None and reply[0] == 0x7fffffff

    def close(self):
        self.socket.close()
        self.memory.close()
        os.close(self.fd)


def well(path):
    raw = Raw(path)
    assert raw.ready()
    return raw


def check_good(path):
    raw = well(path)
    raw.memory[:16] = struct.pack("<4f", 1, 2, 3, 4)
    raw.forward(0)
    slot, header, spans, _ = raw.receive()
    assert slot == 0 and header.status == pb.OK and header.request_id == 1, header
    (at, size), = spans
    assert size == 16 and raw.memory[at:at + 16] == raw.memory[:16]
    # A room that is too small is told, and nothing was done.
    raw.forward(1, room=(65536, 8))
    slot, header, _, wanted = raw.receive()
    assert slot == 1 and header is None and 16 <= wanted <= 256
    raw.forward(1, room=(65536, wanted))
    assert raw.receive()[1].status == pb.OK
    # Other methods, wrong requests, and several records in one packet.
    ping = pb.RequestHeader(version=1, request_id=9, method=pb.PING).SerializeToString()
    raw.send(raw.record(2, ping) + raw.record(3, b"\xff\xff") + raw.record(4, b""))
    replies = {slot: header for slot, header, *_ in (raw.receive() for _ in range(3))}
    assert replies[2].pong.local.instance == raw.instance, replies
    assert replies[3].status == replies[4].status == pb.INVALID_ARGUMENT
    raw.forward(5, uid="nop.9")
    assert raw.receive()[1].status == pb.NOT_FOUND
    raw.forward(6, metadata=b"who asks", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert raw.receive()[1].metadata == b"who asks"
    raw.close()


def check_bad(path):
    """Each is closed; what it brought is gone."""
    for options in (dict(seals=0), dict(announced=2 * SIZE), dict(announced=1 << 50), dict(descriptors=0), dict(descriptors=2)):
        raw = Raw(path, **options)
        assert raw.receive() is None, options
        raw.close()
    good = well(path)
    header = pb.RequestHeader(version=1, method=pb.PING).SerializeToString()
    record = good.record(0, header)
    good.close()
    bad = [b"x", record[:-1], record + b"x", record[:8] + struct.pack("<I", 1024) + record[12:], struct.pack("<I", 1 << 30) + record[4:],
           Raw.record(good, 0, header, [(SIZE, 1)]), Raw.record(good, 0, header, [(8, SIZE)]), Raw.record(good, 0, header, [(1 << 63, 1 << 63)]),
           Raw.record(good, 0, header, room=(SIZE - 1, 2)), Raw.record(good, 0, header, [(0, 0)] * 300), os.urandom(32 << 10)]
    for data in bad:
        raw = well(path)
        raw.send(data)
        assert raw.receive() is None, data[:48]
        raw.close()
    # The same slot twice.
    raw = well(path)
    nop = pb.RequestHeader(version=1, method=pb.FORWARD, uid="slow.0", tensors=[pb.Tensor(dtype=pb.FLOAT32, shape=[1, 4])])
    twice = raw.record(7, nop.SerializeToString(), [(0, 16)], (4096, 4096))
    raw.send(twice + twice)
    assert raw.receive() is None
    raw.close()
    # A memory that may shrink was refused above; one that has holes reads as zeros.
    raw = well(path)
    raw.forward(0, at=SIZE // 2)
    slot, header, spans, _ = raw.receive()
    assert header.status == pb.OK and raw.memory[spans[0][0]:spans[0][0] + 16] == b"\0" * 16
    raw.close()


def check_scribbling(path):
    """A thread that writes everywhere in its memory, the frames and rooms of the requests that are on their way included."""
    raw = well(path)
    stop = threading.Event()

    def scribble():
        while not stop.is_set():
            at = random.randrange(0, SIZE - 4096)
            raw.memory[at:at + 4096] = os.urandom(4096)

    threads = [threading.Thread(target=scribble, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    generator = random.Random(5)
    done = 0
    for turn in range(150):
        rows = generator.randrange(1, 65)
        for slot in range(8):
            codec = generator.randrange(0, 7)
            backward = generator.random() < 0.3
            header = pb.RequestHeader(version=1, request_id=turn * 8 + slot + 1, method=pb.BACKWARD if backward else pb.FORWARD, uid="nop.0",
                                      client_id=b"0123456789abcdef", reply_codecs=[generator.randrange(0, 7)])
            size = {0: 16, 1: 16, 2: 8, 6: 8}.get(codec)
            spans = []
            for _ in range(2 if backward else 1):
                header.tensors.add(dtype=pb.FLOAT32, shape=[rows, 4], codec=codec)
                count = rows * 4
                length = {1: 2 * count + 8 * rows, 3: 8 + 1024 + count, 4: 8 + 1024 + count, 5: 16 + 4 + 1024 + count}.get(
                    codec, rows * (size or 0))
                spans.append((generator.randrange(0, SIZE // 2), length))
            raw.send(raw.record(slot, header.SerializeToString(), spans, (SIZE // 2 + slot * 8192, 8192)))
        for _ in range(8):
            _, reply, _, _ = raw.receive()
            assert reply.status in (pb.OK, pb.INVALID_ARGUMENT, pb.ABORTED), reply  # NaN is noticed as ever
            done += reply.status == pb.OK
    stop.set()
    for thread in threads:
        thread.join()
    assert done > 150, done
    raw.close()


def check_vanishing(path, client):
    """Those that go in the middle of everything, and those that never say anything."""
    for _ in range(50):
        raw = well(path)
        for slot in range(4):
            raw.forward(slot, uid="slow.0")
        raw.close()
    silent = [Raw(path, hello=False) for _ in range(20)]
    assert client.call(pb.PING).pong.experts_alive == 2
    for raw in silent:
        raw.close()
    until(lambda: client.counters()["frontend.local.clients"] == 0, "all are gone")
    until(lambda: client.counters()["frontend.in_flight"] == 0, "nothing of theirs is left")


def check_limits(path, client):
    """More than frontend.local_clients: those that have handed over their memory stay."""
    served = [well(path) for _ in range(6)]
    idle = [Raw(path, hello=False) for _ in range(2)]
    late = well(path)  # takes the place of one that never said anything
    late.forward(0)
    assert late.receive()[1].status == pb.OK
    for raw in served:
        raw.forward(0)
        assert raw.receive()[1].status == pb.OK
    for raw in served + idle + [late]:
        raw.close()
    # One that does not read is not read from, and the others do not notice.
    deaf = well(path)
    deaf.socket.setblocking(False)
    ping = pb.RequestHeader(version=1, method=pb.PING).SerializeToString()
    sent = 0
    try:
        while sent < 100000:
            deaf.send(deaf.record(sent % 1024, ping))
            sent += 1
    except (BlockingIOError, ConnectionError):
        pass
    assert sent < 100000
    assert client.call(pb.PING).pong.experts_alive == 2
    deaf.close()


def mapped(server):
    with open(f"/proc/{server.running['frontend'].pid}/maps") as file:
        return sum("memfd:raw" in line for line in file)


def check_copy_threads(threads, helpers):
    """Tensors of 1 MiB and more, which several threads copy: each byte is what it was, by either way."""
    row, most = 4096, 6000
    with Server([f"{{uid: nop.0, block: nop, hidden_dim: {row // 4}, max_batch_size: {most}, queue_rows: {2 * most}}}"],
                frontend=f"copy_threads: {threads}") as server:
        server.start()
        server.wait_alive()
        tasks = f"/proc/{server.running['frontend'].pid}/task"
        names = [open(f"{tasks}/{task}/comm").read().strip() for task in os.listdir(tasks)]
        assert names.count("copier") == helpers, names
        client = server.client()
        raw = Raw(client.call(pb.PING).pong.local.path, size=64 << 20)
        assert raw.ready()
        for slot, rows in enumerate((255, 256, 257, 1283, most)):
            data = bytearray(os.urandom(rows * row))
            data[3::4] = b"\x3f" * (len(data) // 4)  # numbers all
            header = pb.RequestHeader(version=1, request_id=slot, method=pb.FORWARD, uid="nop.0")
            header.tensors.add(dtype=pb.FLOAT32, shape=[rows, row // 4])
            client.socket.send_multipart([header.SerializeToString(), bytes(data)])
            assert client.socket.poll(PATIENCE * 1000)
            reply, tensor = client.socket.recv_multipart()
            assert pb.ReplyHeader.FromString(reply).status == pb.OK and tensor == data, rows
            raw.memory[:len(data)] = data
            raw.forward(slot, rows=rows, columns=row // 4, room=(32 << 20, 32 << 20))
            _, reply, spans, _ = raw.receive()
            (at, size), = spans
            assert reply.status == pb.OK and raw.memory[at:at + size] == data, rows
        raw.close()
        client.close()
        server.stop()


with Server(["{uid: nop.0, block: nop, hidden_dim: 4, max_batch_size: 64, queue_rows: 1024}",
             "{uid: slow.0, block: nop, hidden_dim: 4, min_batch_size: 64, batch_timeout: 60000}"],
            frontend="local_memory: 1048576, local_clients: 8", server="log_level: debug") as server:
    server.start()
    server.wait_alive()
    client = server.client()
    local = client.call(pb.PING).pong.local
    assert local.path == f"{server.run_dir}/{server.name}.local" and len(local.instance) == 16, local
    stop, served = threading.Event(), [0]

    def good():
        other = well(local.path)
        while not stop.is_set():
            value = struct.pack("<4f", served[0], 1, 2, 3)
            other.memory[:16] = value
            other.forward(0)
            _, header, spans, _ = other.receive()
            assert header.status == pb.OK and other.memory[spans[0][0]:spans[0][0] + 16] == value
            served[0] += 1
        other.close()

    check_good(local.path)
    check_vanishing(local.path, client)
    check_limits(local.path, client)
    thread = threading.Thread(target=good)
    thread.start()
    try:
        check_bad(local.path)
        check_scribbling(local.path)
        before = served[0]
        until(lambda: served[0] > before, "the good client is still served")
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    until(lambda: mapped(server) == 0, "no memory of a client is mapped any more")
    client.close()
    server.stop()
    assert not os.path.exists(local.path)
    assert re.search(r"request 7, method 4 of 'nop.0': traceparent 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01, metadata \"who asks\"",
                     server.log("frontend"))
    assert re.search(r"request 7 of 'nop.0' was answered after [0-9.]+ ms: traceparent 00-0af7", server.log("frontend"))

check_copy_threads(1, 0)
check_copy_threads(3, 2)
