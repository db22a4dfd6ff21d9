"""Tensors through shared memory, to the real server and to one that says what a test wants."""
import array
import mmap
import multiprocessing
import os
import signal
import socket
import struct
import threading
import time

import pytest
import torch
import zmq

import expertd
from conftest import PATIENCE, StandIn, echo, in_threads
from expertd import local, messages
from expertd.transport import transport

X = torch.randn(2, 4)
INSTANCE = bytes(range(16))
WELCOME = struct.pack("<8sIIQ16s", b"expertdL", 1, 1024, 1 << 20, INSTANCE)
READY = struct.pack("<IIIIQ", 24, 0, 0x7FFFFFFF, 0, 0)


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def goes_local(client, uid="nop.0", x=torch.zeros(1, 1024)):
    def tried():
        client.forward(uid, [x])
        return client.local
    until(tried)


def counter(client, name):
    return client.stats()[name]


@pytest.fixture
def near(server):
    client = expertd.Client(server.endpoint, timeout=PATIENCE)
    goes_local(client)
    return client


def test_a_client_on_the_servers_host_shares_memory_with_it_by_itself(near):
    before = counter(near, "frontend.local.requests")
    for rows in (1, 3, 17, 300, 1, 1024):
        x = torch.randn(rows, 1024)
        assert torch.equal(near.forward("nop.0", [x])[0], x)
        assert torch.equal(near.backward("nop.0", [x], [x + 1])[0], x + 1)
    assert near.local and counter(near, "frontend.local.requests") - before >= 12
    with pytest.raises(expertd.NotFound):
        near.forward("nop.17", [X])
    with pytest.raises(expertd.InvalidArgument):
        near.forward("nop.0", [X])
    for codec in ("float16", "blockwise_8bit"):
        x = torch.randn(8, 1024)
        (y,) = expertd.Client(near.endpoint, timeout=PATIENCE, compression=codec).forward("nop.0", [x])
        assert torch.allclose(x, y, atol=0.1) and not torch.equal(x, y)


def test_an_answer_through_shared_memory_belongs_to_its_reader(near):
    x = torch.randn(300, 1024)
    first = near.forward("nop.0", [x])[0]
    second = near.forward("nop.0", [x])[0]
    first.zero_()
    assert torch.equal(second, x) and torch.equal(near.forward("nop.0", [x])[0], x) and not first.any()


def test_threads_share_the_memory(near):
    wrong = []

    def work(number):
        for i in range(20):
            x = torch.full((1 + (number + i) % 40, 1024), float(1000 * number + i))
            if not torch.equal(near.forward("nop.0", [x])[0], x):
                wrong.append((number, i))
    in_threads(16, work)
    assert not wrong and near.local


def _in_child(endpoint, results):
    try:
        client = expertd.Client(endpoint, timeout=PATIENCE)
        goes_local(client)
        xs = [torch.randn(1 + i, 1024) for i in range(20)]
        results.put(all(torch.equal(client.forward("nop.0", [x])[0], x) for x in xs))
    except BaseException as error:
        results.put(repr(error))


def test_forked_children_have_memory_of_their_own(near):
    kept = near.forward("nop.0", [torch.ones(64, 1024)])[0]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_in_child, args=(near.endpoint, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for i in range(20):
        x = torch.randn(1 + i, 1024)
        assert torch.equal(near.forward("nop.0", [x])[0], x)
    assert [results.get(timeout=PATIENCE) for _ in workers] == [True] * 4
    for worker in workers:
        worker.join()
    assert torch.equal(kept, torch.ones(64, 1024))


def test_a_child_does_not_keep_its_parents_link_open(near):
    link = transport().connection(near.endpoint).link
    inode = os.stat(f"/proc/self/fd/{link.fd}").st_ino
    pid = os.fork()
    if pid == 0:
        inodes = set()
        for fd in os.listdir("/proc/self/fd"):
            try:
                inodes.add(os.stat(f"/proc/self/fd/{fd}").st_ino)
            except OSError:
                pass
        os._exit(1 if inode in inodes else 0)
    assert os.waitpid(pid, 0)[1] == 0


def test_interrupts_at_any_moment_do_not_spoil_the_memory(near):
    x, finished, interrupted = torch.randn(64, 1024), 0, 0
    previous = signal.getsignal(signal.SIGALRM)

    def raise_interrupt(signum, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, raise_interrupt)
    patient = expertd.Client(near.endpoint, timeout=PATIENCE, retry_for=PATIENCE)
    try:
        for i in range(100):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + (i % 50) * 1e-5)
                try:
                    (y,) = patient.forward("nop.0", [x])
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                assert torch.equal(x, y)
                finished += 1
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupted > 0
    goes_local(near)
    assert torch.equal(near.forward("nop.0", [x])[0], x)
    assert transport().connection(near.endpoint).in_flight() == 0


def test_what_does_not_fit_into_the_memory_goes_over_zeromq(server):
    local.use(256 << 10)
    try:
        client = expertd.Client(server.endpoint.replace("127.0.0.1", "localhost"), timeout=PATIENCE)
        goes_local(client)
        for rows in (1, 8, 64, 1, 256, 16, 20, 24, 28):
            x = torch.randn(rows, 1024)
            assert torch.equal(client.forward("nop.0", [x])[0], x)
        calls = [(x, client.start_forward("nop.0", [x])) for x in (torch.randn(8, 1024) for _ in range(40))]
        assert all(torch.equal(client.outputs(call)[0], x) for x, call in calls)
        assert client.local
    finally:
        local.use(None)


def test_no_memory_is_shared_where_that_is_switched_off_or_elsewhere(monkeypatch):
    assert local.memory_for("tcp://127.0.0.1:31330") == local.memory_for("ipc:///run/expertd") == 256 << 20
    assert local.memory_for("tcp://10.0.0.7:31330") == 0
    monkeypatch.setenv("EXPERTD_LOCAL_MEMORY", "0")
    assert local.memory_for("tcp://127.0.0.1:31330") == 0
    with pytest.raises(ValueError):
        local.use(-1)


def test_blocks_do_not_meet_and_are_used_again():
    heap = local.Heap(1 << 20)
    taken = []
    generator = torch.Generator().manual_seed(3)
    for turn in range(2000):
        size = int(torch.randint(1, 40000, (), generator=generator))
        block = heap.take(size)
        if block is None or turn % 3 == 2:
            for other in taken[::2]:
                heap.give(other)
            del taken[::2]
        if block is not None:
            assert block[1] >= size and block[0] % 64 == 0 and block[0] + block[1] <= 1 << 20
            taken.append(block)
        ends = sorted((at, at + size) for at, size in taken)
        assert all(a[1] <= b[0] for a, b in zip(ends, ends[1:]))
    for block in taken:
        heap.give(block)
    assert heap.take(1 << 20) == (0, 1 << 20)  # cut anew
    assert heap.take(1) is None
    os.close(heap.fd)


# ---- a server that says what the test wants


class Near(StandIn):
    """With shared memory. taken(request, frames, record) returns the packet that answers a request there, or None for an
    echo, or "close". `welcome` greets."""

    def __init__(self, path, answer=echo, taken=lambda *_: None, welcome=WELCOME, ready=READY):
        super().__init__(answer)
        self.path, self.taken, self.welcome, self.ready_record = str(path), taken, welcome, ready
        self.local_requests = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.pong = messages.server.Pong(server="near", local={"path": self.path, "instance": INSTANCE})
        self.served = 0
        self.accepting = threading.Thread(target=self.accept, daemon=True)
        self.accepting.start()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            with peer:
                self.served += 1
                try:
                    self.serve(peer)
                except OSError:
                    pass

    def serve(self, peer):
        peer.send(self.welcome)
        data, rights, _, _ = peer.recvmsg(4096, 1024)
        if not data:
            return
        fd = array.array("i", rights[0][2])[0]
        memory = mmap.mmap(fd, 0)
        os.close(fd)
        peer.send(self.ready_record)
        while True:
            data = peer.recv(32 << 10)
            if not data:
                return
            _, header, slot, tensors, room, _ = struct.unpack_from("<IIIIQQ", data)
            spans = [struct.unpack_from("<QQ", data, 32 + 16 * i) for i in range(tensors)]
            begin = 32 + 16 * tensors
            request = messages.server.RequestHeader.FromString(data[begin:begin + header])
            frames = [memory[at:at + size] for at, size in spans]
            self.local_requests.append(request)
            packet = self.taken(request, frames, (slot, spans, struct.unpack_from("<QQ", data, 16)))
            if packet == "close":
                return
            if packet == b"":
                continue
            if packet is None:
                packet = self.reply(memory, request, frames, slot, room)
            peer.send(packet)

    @staticmethod
    def reply(memory, request, frames, slot, at):
        header, out = echo(request, frames)
        header.request_id = request.request_id
        memory[at:at + len(out[0])] = out[0]
        return record(slot, header.SerializeToString(), [(at, len(out[0]))])

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        super().stop()


def record(slot, header=b"", spans=(), wanted=0):
    size = (24 + 16 * len(spans) + len(header) + 7) // 8 * 8
    return (struct.pack("<IIIIQ", size, len(header), slot, len(spans), wanted)
            + b"".join(struct.pack("<QQ", *span) for span in spans) + header).ljust(size, b"\0")


@pytest.fixture
def near_by(tmp_path):
    made = []

    def make(**options):
        made.append(Near(tmp_path / f"s{len(made)}", **options))
        return made[-1], expertd.Client(made[-1].endpoint, timeout=PATIENCE, retry_for=PATIENCE)
    yield make
    for one in made:
        one.stop()


def test_a_room_that_was_too_small_is_given_larger_and_remembered(near_by):
    wanted = []

    def taken(request, frames, told):
        slot, _, (_, room) = told
        if room < 1 << 16:
            wanted.append(request.request_id)
            return record(slot, wanted=1 << 16)
        return None
    server, client = near_by(taken=taken)
    goes_local(client, "e.0", X)
    assert torch.equal(client.forward("e.0", [X])[0], X)
    assert wanted and {r.request_id for r in server.local_requests} <= set(wanted)
    # One that asks for more than there is gets the request over ZeroMQ.
    server.taken = lambda request, frames, told: record(told[0], wanted=1 << 40)
    before = len(server.requests)
    assert torch.equal(client.forward("e.0", [X])[0], X) and len(server.requests) == before + 1 and client.local


def test_a_lost_link_is_a_loss_of_its_calls_which_are_repeated_under_their_ids(near_by, monkeypatch):
    monkeypatch.setattr("expertd.connection.LOCAL_SOON", float("inf"))  # however slow the machine is
    server, client = near_by(taken=lambda *_: "close")
    goes_local_once(client)
    (grad,) = client.backward("e.0", [X], [X + 1])
    assert torch.equal(grad, X)
    assert server.local_requests[-1].request_id == server.requests[-1].request_id
    # It is taken up anew, and no more after three failures in a row.
    for _ in range(20):
        client.forward("e.0", [X])
    assert 1 <= server.served <= 3 + 1
    impatient = expertd.Client(server.endpoint, timeout=PATIENCE, retry_for=0)
    assert torch.equal(impatient.forward("e.0", [X])[0], X)


def goes_local_once(client):
    def tried():
        client.ping()
        return client.local
    until(tried)


def test_what_a_server_says_wrongly_ends_its_link_and_nothing_else(near_by):
    def lie(make):
        return {"taken": lambda request, frames, told: make(request, *told)}

    def good(request):
        header, _ = echo(request, [])
        header.request_id = request.request_id
        return header.SerializeToString()
    lies = [
        {"welcome": b""}, {"welcome": WELCOME[:-1]}, {"welcome": b"x" * len(WELCOME)}, {"welcome": WELCOME[:-1] + b"x"},
        {"welcome": struct.pack("<8sIIQ16s", b"expertdL", 2, 1024, 1 << 20, INSTANCE)},
        {"welcome": struct.pack("<8sIIQ16s", b"expertdL", 1, 1024, 17, INSTANCE)},
        {"ready": b"x"}, {"ready": record(5)}, {"ready": READY + READY}, {"ready": b"\xff" * (33 << 10)},
        lie(lambda r, slot, spans, room: record(slot + 1, good(r), [room])),
        lie(lambda r, slot, spans, room: record(slot, good(r), [(room[0] + room[1], 8)])),
        lie(lambda r, slot, spans, room: record(slot, good(r), [(0, 8)] if room[0] else [(1 << 63, 8)])),
        lie(lambda r, slot, spans, room: record(slot, good(r), [(room[0], 1 << 63)])),
        lie(lambda r, slot, spans, room: record(slot, good(r), [room] * 17)),
        lie(lambda r, slot, spans, room: record(slot, good(r), [room])[:-8]),
        lie(lambda r, slot, spans, room: record(slot, good(r)) + b"x"),
        lie(lambda r, slot, spans, room: record(slot, good(r), [(room[0], 32)]) * 2),
    ]
    for options in lies:
        server, client = near_by(**options)
        for i in range(6):
            assert torch.equal(client.forward("e.0", [X + i])[0], X + i), options
        assert transport().connection(server.endpoint).in_flight() == 0
        until(lambda: not client.local or client.forward("e.0", [X]) and False)


def test_a_request_that_nobody_waits_for_keeps_its_memory_until_it_is_answered(near_by):
    rooms, slots = [], []

    def taken(request, frames, told):
        slot, spans, room = told
        rooms.append((request.uid, spans[0], room))
        if request.uid == "slow.0":
            slots.append((slot, request.request_id))
            return b""  # an empty packet would be an end: nothing is sent
        if request.uid == "end.0":  # first the old answer, then its own
            header = messages.server.ReplyHeader(version=1, request_id=slots[0][1], tensors=request.tensors[:1])
            return record(slots[0][0], header.SerializeToString(), [(slow_room(), 32)]) + record(
                slot, echo_header(request), [(room[0], 32)])
        return None

    def slow_room():
        return next(room[0] for uid, _, room in rooms if uid == "slow.0")

    def echo_header(request):
        header, _ = echo(request, [])
        header.request_id = request.request_id
        return header.SerializeToString()
    server, client = near_by(taken=taken)
    goes_local_once(client)
    with pytest.raises(expertd.DeadlineExceeded):
        client.forward("slow.0", [X], timeout=0.2)
    for _ in range(5):
        assert torch.equal(client.forward("e.0", [X])[0], X)
    begin = min(span[0] for uid, span, _ in rooms if uid == "slow.0")
    end = max(room[0] + room[1] for uid, _, room in rooms if uid == "slow.0")
    assert all(room[0] + room[1] <= begin or span[0] >= end for uid, span, room in rooms if uid == "e.0")
    connection = transport().connection(server.endpoint)
    assert connection.link.heap.blocks == 1
    client.forward("end.0", [X])
    assert connection.late_replies >= 1 and client.local and connection.link.heap.blocks == 0


def test_a_question_for_the_memory_that_found_no_room_is_asked_again(near_by):
    server, client = near_by()
    connection = transport().connection(server.endpoint)
    send, full = connection._send_frame, []

    def send_frame(frame, flags, *copy):
        if bytes(frame).endswith(connection._ping) and len(full) < 3:
            full.append(frame)
            raise zmq.Again
        return send(frame, flags, *copy)
    connection._send_frame = send_frame
    goes_local(client, "e.0", X)
    assert len(full) == 3


def test_a_call_that_went_another_way_meanwhile_is_not_sent_again_by_its_old_one(near_by):
    slots, went = {}, threading.Event()

    def taken(request, frames, told):
        slots[request.uid] = told[0], request.request_id
        if request.uid == "refuse.0":  # not itself, but the other
            header = messages.server.ReplyHeader(version=1, request_id=slots["large.0"][1], status=8)
            return record(told[0], header.SerializeToString())
        if request.uid == "elsewhere.0":
            header = messages.server.ReplyHeader(version=1, request_id=request.request_id, status=3)
            return record(slots["large.0"][0], wanted=1 << 40) + record(told[0], header.SerializeToString())
        return b""

    def answer(request, frames):
        went.set()
        return None
    local.use(64 << 10)  # not twice as much as the large one needs
    try:
        server, client = near_by(taken=taken, answer=answer)
        goes_local_once(client)
    finally:
        local.use(None)
    large = client.start_backward("large.0", [torch.zeros(10, 256)], [torch.zeros(10, 256)])
    other = client.start_forward("refuse.0", [X])
    assert went.wait(PATIENCE)
    with pytest.raises(expertd.InvalidArgument):
        client.forward("elsewhere.0", [X])
    client.info("e.0")  # behind what would have been sent again
    assert [request.uid for request in server.requests] == ["large.0", "e.0"]
    assert slots["large.0"][1] == server.requests[0].request_id
    assert large.cancel() and other.cancel()
