"""Calls against a stand-in: statuses, deadlines, repeats, hostile replies, threads, forks."""
import contextlib
import gc
import math
import multiprocessing
import os
import pickle
import re
import select
import signal
import socket
import threading
import time

import pytest
import torch
import zmq

import expertd
from conftest import PATIENCE, echo, in_threads, refusal
from expertd import credit, messages
from expertd.connection import UP
from expertd.group import free_port
from expertd.transport import BULK, DHT, SERVER, transport

X = torch.arange(8.0).reshape(2, 4)
UNAVAILABLE, RESOURCE_EXHAUSTED = 14, 8


def test_every_status_is_an_exception_with_the_servers_sentence(stand_in):
    kinds = {3: (expertd.InvalidArgument, ValueError), 4: (expertd.DeadlineExceeded, TimeoutError),
             5: (expertd.NotFound, LookupError), 6: (expertd.AlreadyExists, Exception),
             8: (expertd.ResourceExhausted, Exception), 10: (expertd.Aborted, ArithmeticError),
             12: (expertd.Unimplemented, NotImplementedError), 13: (expertd.Internal, Exception),
             14: (expertd.Unavailable, ConnectionError), 77: (expertd.Internal, Exception)}
    server = stand_in(lambda request, frames: refusal(int(request.uid.split(".")[1]), "a sentence"))
    client = expertd.Client(server.endpoint, timeout=PATIENCE, retry_for=0)
    for status, (kind, also) in kinds.items():
        with pytest.raises(kind) as caught:
            client.forward(f"e.{status}", [X])
        assert isinstance(caught.value, also) and isinstance(caught.value, expertd.ExpertdError)
        assert caught.value.message == "a sentence" and caught.value.status == status
        assert server.endpoint in str(caught.value) and caught.value.not_applied
        again = pickle.loads(pickle.dumps(caught.value))
        assert type(again) is kind and str(again) == str(caught.value)


def test_only_a_backward_that_was_certainly_refused_counts_as_not_applied(stand_in):
    server = stand_in(lambda request, frames: refusal(int(request.uid.split(".")[1])))
    client = expertd.Client(server.endpoint, timeout=PATIENCE, retry_for=0.2)
    for status, not_applied in ((3, True), (10, True), (8, True), (13, True), (4, False), (6, False), (14, False), (77, False)):
        with pytest.raises(expertd.ExpertdError) as caught:
            client.backward(f"e.{status}", [X], [X])
        assert caught.value.not_applied is not_applied, status


def test_a_callback_that_fails_leaves_the_other_calls_their_thread(stand_in):
    server = stand_in(echo)
    client, ended = expertd.Client(server.endpoint, timeout=PATIENCE), threading.Event()
    server.answer, held = (lambda request, frames: echo(request, frames) if held.wait(PATIENCE) else None), threading.Event()
    calls = [client.start_forward("e.0", [X]) for _ in range(2)]
    calls[0].add_done_callback(lambda call: 1 / 0)
    calls[0].add_done_callback(lambda call: calls[1].add_done_callback(lambda call: ended.set()))
    held.set()
    assert ended.wait(PATIENCE) and calls[1].done()  # by the I/O thread: nobody waits for the calls


def test_a_deadline_is_kept_without_the_server(stand_in):
    server = stand_in(lambda request, frames: None)
    client = expertd.Client(server.endpoint, timeout=0.2)
    with pytest.raises(expertd.DeadlineExceeded):
        client.forward("e.0", [X])
    calls = [client.start_forward("e.0", [X], timeout=0.1 * i) for i in (3, 1, 2)]
    ended = threading.Event()
    calls[0].add_done_callback(lambda call: ended.set())
    assert ended.wait(PATIENCE)  # by the I/O thread: nobody waits for the call itself
    assert all(isinstance(call.error, expertd.DeadlineExceeded) for call in calls)
    assert transport().connection(server.endpoint).in_flight() == 0
    assert 0 < server.requests[0].deadline_ms <= 200


def test_nobody_at_the_endpoint_is_unavailable_when_the_patience_ends():
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(expertd.Unavailable, match="does not take connections") as caught:
        expertd.Client(endpoint, timeout=PATIENCE, retry_for=0.3).backward("e.0", [X], [X])
    assert caught.value.not_applied and endpoint in str(caught.value)
    with pytest.raises(expertd.Unavailable):  # known to be down: at once
        expertd.Client(endpoint, timeout=PATIENCE, retry_for=0).forward("e.0", [X])


def test_what_is_no_endpoint_is_refused_at_once():
    for wrong in ("nonsense", "tcp://", "http://127.0.0.1:1", ""):
        with pytest.raises(expertd.InvalidArgument, match="endpoint"):
            expertd.Client(wrong)


@pytest.mark.parametrize("host, by_ipv6", [("localhost", 0), ("127.0.0.1", 0), ("[::1]", 1), ("::1", 1)])
def test_a_name_is_asked_by_ipv4(host, by_ipv6):
    """ZeroMQ tries one address of a name, and where IPv6 is on that of IPv6, at which a server on 127.0.0.1 or * is not."""
    expertd.Client(f"tcp://{host}:{free_port()}")
    connection = transport().connections()[-1]
    assert host in connection.endpoint and connection.socket.get(zmq.IPV6) == by_ipv6


def test_a_full_or_starting_server_is_asked_again_with_the_same_id(stand_in):
    for status in (UNAVAILABLE, RESOURCE_EXHAUSTED):
        asked = []

        def answer(request, frames, asked=asked, status=status):
            asked.append(request.request_id)
            return refusal(status) if len(asked) < 3 else echo(request, frames)
        client = expertd.Client(stand_in(answer).endpoint, timeout=PATIENCE, retry_for=PATIENCE)
        (grad,) = client.backward("e.0", [X], [X])
        assert torch.equal(grad, X) and len(asked) == 3 and len(set(asked)) == 1


def test_other_refusals_are_not_repeated(stand_in):
    server = stand_in(lambda request, frames: refusal(13))
    with pytest.raises(expertd.Internal):
        expertd.Client(server.endpoint, timeout=PATIENCE).backward("e.0", [X], [X])
    assert len(server.requests) == 1


def test_replies_in_another_order_find_their_calls(stand_in):
    held = []

    def answer(request, frames):
        held.append((request, frames))
        return None
    server = stand_in(answer)
    client = expertd.Client(server.endpoint, timeout=PATIENCE)
    calls = [client.start_forward("e.0", [X + i]) for i in range(8)]
    while len(held) < 8:
        time.sleep(0.01)
    server.answer = lambda request, frames: answer_held(request, frames)

    def answer_held(request, frames):
        # The socket is this thread's: all that is held goes out, the last first, with the answer to this one.
        identity = server.identity
        for old, old_frames in reversed(held):
            header, out = echo(old, old_frames)
            header.request_id = old.request_id
            server.socket.send_multipart([identity, header.SerializeToString(), *out])
        return echo(request, frames)
    identities = []
    original = server.socket.recv_multipart

    def spy(*args, **kwargs):
        frames = original(*args, **kwargs)
        identities.append(frames[0])
        server.identity = frames[0]
        return frames
    server.socket.__dict__["recv_multipart"] = spy
    client.forward("e.0", [X])
    for i, call in enumerate(calls):
        assert torch.equal(client.outputs(call)[0], X + i)


def test_hostile_replies_end_their_call_with_a_sentence_and_nothing_else(stand_in):
    pb = messages.server
    lies = {
        "frames": (pb.ReplyHeader(version=1, tensors=[pb.Tensor(dtype=1, shape=[2, 4])] * 2), [b"\0" * 32]),
        "bytes": (pb.ReplyHeader(version=1, tensors=[pb.Tensor(dtype=1, shape=[2, 4])]), [b"\0" * 31]),
        "huge": (pb.ReplyHeader(version=1, tensors=[pb.Tensor(dtype=1, shape=[1 << 63, 1 << 63])]), [b"\0" * 32]),
        "empty": (pb.ReplyHeader(version=1, tensors=[pb.Tensor(dtype=1, shape=[0, 1 << 63])]), [b""]),
        "dims": (pb.ReplyHeader(version=1, tensors=[pb.Tensor(dtype=1, shape=[1] * 9)]), [b"\0" * 4]),
        "dtype": (pb.ReplyHeader(version=1, tensors=[pb.Tensor(dtype=99, shape=[2, 4])]), [b"\0" * 32]),
        "codec": (pb.ReplyHeader(version=1, tensors=[pb.Tensor(dtype=1, shape=[2, 4], codec=99)]), [b"\0" * 32]),
        "version": (pb.ReplyHeader(version=2), []),
    }
    server = stand_in(lambda request, frames: lies[request.uid])
    client = expertd.Client(server.endpoint, timeout=PATIENCE)
    for lie in lies:
        with pytest.raises(expertd.Internal):
            client.forward(lie, [X])
    connection = transport().connection(server.endpoint)
    assert connection.in_flight() == 0
    # What names no call of ours, or is no message, is dropped.
    garbage = iter([(b"\xff\xff\xff", []), (pb.ReplyHeader(version=1, request_id=12345678).SerializeToString(), []),
                    (b"", [])])
    server.answer = lambda request, frames: next(garbage, None) or echo(request, frames)
    for _ in range(3):
        with pytest.raises(expertd.DeadlineExceeded):
            client.forward("e.0", [X], timeout=0.2)
    assert torch.equal(client.forward("e.0", [X])[0], X)
    assert connection.malformed_replies == 1 and connection.late_replies >= 2


def test_after_a_lost_connection_calls_are_repeated_under_their_ids(stand_in):
    silent = stand_in(lambda request, frames: None)
    port = silent.port
    client = expertd.Client(silent.endpoint, timeout=PATIENCE, retry_for=PATIENCE)
    call = client.start_backward("e.0", [X], [X])
    while not silent.requests:
        time.sleep(0.01)
    silent.stop()
    import zmq
    context = zmq.Context()
    second = context.socket(zmq.ROUTER)
    second.linger = 0
    second.bind(f"tcp://127.0.0.1:{port}")
    assert second.poll(PATIENCE * 1000)
    identity, header, *frames = second.recv_multipart()
    request = messages.server.RequestHeader.FromString(header)
    assert request.request_id == silent.requests[0].request_id and request.client_id == silent.requests[0].client_id
    reply, out = echo(request, frames)
    reply.request_id = request.request_id
    second.send_multipart([identity, reply.SerializeToString(), *out])
    assert torch.equal(client.outputs(call)[0], X)
    second.close(0)
    context.term()
    silent.stop = lambda: None


def test_a_call_whose_server_does_not_come_back_ends_when_the_patience_ends(stand_in):
    server = stand_in(lambda request, frames: None)
    client = expertd.Client(server.endpoint, timeout=PATIENCE, retry_for=1.0)
    begin = time.monotonic()
    calls = [client.start_backward("e.0", [X], [X]) for _ in range(2)]
    while len(server.requests) < 2:
        time.sleep(0.01)
    server.stop()
    server.stop = lambda: None
    ended = threading.Event()
    calls[1].add_done_callback(lambda call: ended.set())
    with pytest.raises(expertd.Unavailable) as caught:
        calls[0].result()
    assert not caught.value.not_applied and ended.wait(PATIENCE)
    assert time.monotonic() - begin < PATIENCE / 2  # not at the deadline


def test_32_threads_share_a_connection(stand_in):
    server = stand_in(echo)
    client = expertd.Client(server.endpoint, timeout=PATIENCE)
    wrong = []

    def work(number):
        for i in range(50):
            x = torch.full((1 + i % 3, 4), float(1000 * number + i))
            if not torch.equal(client.forward("e.0", [x])[0], x):
                wrong.append((number, i))
    in_threads(32, work)
    assert not wrong and len(server.requests) == 32 * 50
    assert len({r.request_id for r in server.requests}) == 32 * 50


def _in_child(endpoint, results):
    try:
        client = expertd.Client(endpoint, timeout=PATIENCE)
        outputs = [client.forward("e.0", [X + i])[0] for i in range(20)]
        results.put((all(torch.equal(y, X + i) for i, y in enumerate(outputs)), transport().client_id))
    except BaseException as error:
        results.put((repr(error), b""))


def test_4_forked_workers_call_while_the_parent_calls(stand_in):
    server = stand_in(echo)
    client = expertd.Client(server.endpoint, timeout=PATIENCE)
    client.forward("e.0", [X])
    in_flight = client.start_forward("e.0", [X])
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_in_child, args=(server.endpoint, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for i in range(20):
        assert torch.equal(client.forward("e.0", [X + i])[0], X + i)
    got = [results.get(timeout=PATIENCE) for _ in workers]
    for worker in workers:
        worker.join()
    assert [ok for ok, _ in got] == [True] * 4
    assert len({client_id for _, client_id in got} | {transport().client_id}) == 5
    assert torch.equal(client.outputs(in_flight)[0], X)


def test_a_call_of_the_parent_is_refused_in_a_forked_child(stand_in):
    client = expertd.Client(stand_in(lambda request, frames: None).endpoint, timeout=PATIENCE)
    call = client.start_forward("e.0", [X])
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call.result()
        except expertd.Unavailable as error:
            code = 0 if "fork" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert call.cancel()


@pytest.fixture
def interruptible():
    """As a shell leaves SIGINT ignored in what it starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_keyboard_interrupt_gives_up_the_call_and_leaves_nothing_behind(stand_in, interruptible):
    silent = [True]
    server = stand_in(lambda request, frames: None if silent[0] else echo(request, frames))
    client = expertd.Client(server.endpoint, timeout=PATIENCE)
    connection = transport().connection(server.endpoint)
    for _ in range(5):
        before = len(server.requests)

        def interrupt(before=before):
            while len(server.requests) == before:
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            client.forward("e.0", [X])
        thread.join()
        assert connection.in_flight() == 0
    silent[0] = False
    assert torch.equal(client.forward("e.0", [X])[0], X)


def test_interrupts_at_any_moment_do_not_spoil_the_connection(stand_in):
    server = stand_in(echo)
    client = expertd.Client(server.endpoint, timeout=PATIENCE, retry_for=PATIENCE)
    client.forward("e.0", [X])
    big = torch.randn(64, 4)
    finished, interrupted, previous = 0, 0, signal.getsignal(signal.SIGALRM)

    def raise_interrupt(signum, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, raise_interrupt)
    try:
        for i in range(100):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + (i % 60) * 1e-5)
                try:
                    outputs = client.forward("e.0", [big, X])
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                assert torch.equal(outputs[0], big)
                finished += 1
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupted > 0 and finished + interrupted == 100
    assert torch.equal(client.forward("e.0", [X])[0], X)
    # None of them came out as something else than was asked.
    assert all(len(r.tensors) in (1, 2) for r in server.requests)


def test_10000_calls_leak_nothing(stand_in):
    server = stand_in(echo)
    client = expertd.Client(server.endpoint, timeout=PATIENCE)

    def some(count):
        for _ in range(count):
            client.forward("e.0", [X])
            server.requests.clear()
        gc.collect()
        return len(gc.get_objects()), len(os.listdir("/proc/self/fd")), threading.active_count()
    some(200)
    before, after = some(100), some(10000)
    assert after[0] - before[0] < 200 and after[1:] == before[1:]
    assert transport().connection(server.endpoint).in_flight() == 0


def test_dtypes_and_layouts_arrive_as_they_were(stand_in):
    client = expertd.Client(stand_in(echo).endpoint, timeout=PATIENCE)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32,
                  torch.int64, torch.uint8, torch.bool):
        for shape in ((1,), (3, 5), (2, 3, 4), (300, 1000)):
            x = (torch.randn(shape) * 10).to(dtype)
            (y,) = client.forward("e.0", [x])
            assert y.dtype == dtype and torch.equal(x, y)
            assert y.data_ptr() % y.element_size() == 0
    x = torch.randn(6, 8)
    for view in (x.t(), x[:, ::2], x[1:].expand(5, 8), x[0].expand(4, 8)):
        assert torch.equal(client.forward("e.0", [view])[0], view)
    with pytest.raises(expertd.InvalidArgument, match="complex"):
        client.forward("e.0", [torch.zeros(2, dtype=torch.complex64)])
    with pytest.raises(expertd.InvalidArgument, match="dimensions"):
        client.forward("e.0", [torch.tensor(1.0)])
    with pytest.raises(expertd.InvalidArgument, match="17 tensors"):
        client.forward("e.0", [X] * 17)


def test_an_answer_belongs_to_its_reader(stand_in):
    client = expertd.Client(stand_in(echo).endpoint, timeout=PATIENCE)
    x = torch.randn(300, 1000)
    first, second = client.forward("e.0", [x])[0], client.forward("e.0", [x])[0]
    first.zero_()  # large tensors lie in the memory that ZeroMQ received them in
    assert torch.equal(second, x)


def test_no_two_calls_of_a_process_have_one_id(stand_in):
    # By client and request id a server, or one that has its experts' checkpoints, tells repeats from new backwards.
    servers = [stand_in(echo) for _ in range(2)]
    for server in servers * 3:
        expertd.Client(server.endpoint, timeout=PATIENCE).backward("e.0", [X], [X])
    requests = [request for server in servers for request in server.requests]
    assert len({request.client_id for request in requests}) == 1
    assert len({request.request_id for request in requests}) == len(requests) == 6


def test_large_messages_may_take_longer_than_silence_would(stand_in, proxy, monkeypatch):
    monkeypatch.setattr("expertd.connection.HEARTBEAT_MS", 1000)  # 5 s without a sign are silence
    server = stand_in(echo)
    links = [proxy(server.port, slow=direction, seconds=8.0) for direction in ("up", "down")]
    clients = [expertd.Client(link.endpoint, timeout=PATIENCE, retry_for=PATIENCE) for link in links]
    for client in clients:
        client.forward("e.0", [X])
    large = torch.arange(2048 * 1024.0).reshape(2048, 1024)  # 8 MiB, 10 s at least
    for link in links:
        link.begin_slowly()
    calls = [client.start_forward("e.0", [large]) for client in clients]
    for client, call in zip(clients, calls):
        assert torch.equal(client.outputs(call)[0], large)
    for link in links:
        assert transport().connection(link.endpoint).losses == 0 and link.accepted == 1


def test_large_calls_go_by_the_first_connection_where_there_is_no_second(stand_in, proxy, monkeypatch):
    monkeypatch.setattr("expertd.transport._THIS_HOST", re.compile("none"))
    server = stand_in(echo)
    link = proxy(server.port, admits=1)
    client, large = expertd.Client(link.endpoint, timeout=PATIENCE, retry_for=PATIENCE), torch.arange(64 * 1024.0).reshape(64, 1024)
    client.forward("e.0", [X])
    calls = [client.start_forward("e.0", [large]), client.start_backward("e.0", [large], [large]),
             client.start_forward("e.0", [large], retry_for=0)]  # which else waits for nothing that is down
    first, second = transport().connection(link.endpoint), transport().connection(link.endpoint, BULK)
    assert first is not second
    assert all(torch.equal(client.outputs(call)[0], large) for call in calls)
    assert link.held and second.kept_out and second.in_flight() == 0
    call = client.start_forward("e.0", [large])
    assert call.connection is first  # it waits no more
    assert torch.equal(client.outputs(call)[0], large)
    link.admit(2)
    while second.kept_out:
        client.forward("e.0", [X])
    call = client.start_backward("e.0", [large], [large])
    assert call.connection is second and torch.equal(client.outputs(call)[0], large)
    ids = [request.request_id for request in server.requests if request.tensors[0].shape[0] == 64]
    assert len(ids) == 5 == len(set(ids)) and link.accepted == 2


def test_large_calls_that_were_lost_with_the_second_connection_go_by_the_first(stand_in, proxy, monkeypatch):
    monkeypatch.setattr("expertd.transport._THIS_HOST", re.compile("none"))
    held = []  # the first large one
    server = stand_in(lambda request, frames: echo(request, frames) if held or len(frames[0]) < 1 << 16 else held.append(request))
    link = proxy(server.port, admits=2)
    client, large = expertd.Client(link.endpoint, timeout=PATIENCE, retry_for=PATIENCE), torch.arange(64 * 1024.0).reshape(64, 1024)
    client.forward("e.0", [X])
    call = client.start_backward("e.0", [large], [large])
    first, second = transport().connection(link.endpoint), transport().connection(link.endpoint, BULK)
    while not held:
        time.sleep(0.01)
    assert call.connection is second and link.accepted == 2
    link.sockets[2].shutdown(socket.SHUT_RDWR)
    assert torch.equal(client.outputs(call)[0], large)
    assert call.connection is first and second.kept_out and second.losses >= 1
    ids = [request.request_id for request in server.asked("BACKWARD")]
    assert len(ids) == 2 and ids[0] == ids[1]


def test_impatient_calls_wait_for_neither_connection_when_both_are_down(stand_in, proxy, monkeypatch):
    monkeypatch.setattr("expertd.transport._THIS_HOST", re.compile("none"))
    monkeypatch.setattr("expertd.connection.SECOND_PATIENCE", PATIENCE)  # else the large ones go by the first meanwhile
    monkeypatch.setattr("expertd.call.IMPATIENT_RETRY_FOR", 2 * PATIENCE)
    link = proxy(stand_in(echo).port, admits=1)
    client, large = expertd.Client(link.endpoint, timeout=2 * PATIENCE), torch.arange(64 * 1024.0).reshape(64, 1024)
    client.forward("e.0", [X])
    impatient, patient = [client.start_forward("e.0", [large], retry_for=wait) for wait in (0, 2 * PATIENCE)]
    first, second = transport().connection(link.endpoint), transport().connection(link.endpoint, BULK)
    while not link.held:
        time.sleep(0.01)
    link.listener.shutdown(socket.SHUT_RDWR)
    link.held[0].shutdown(socket.SHUT_RDWR)
    while not second.is_down():  # it would go by the first
        time.sleep(0.01)
    link.sockets[0].shutdown(socket.SHUT_RDWR)
    assert impatient.wait(PATIENCE)
    with pytest.raises(expertd.Unavailable) as failed:
        client.outputs(impatient)
    assert failed.value.not_applied and first.state != UP and impatient.connection is second
    with pytest.raises(expertd.Unavailable):
        client.outputs(client.start_backward("e.0", [large], [large], retry_for=0))
    assert not patient.done() and patient.cancel() and second.in_flight() == 0


def test_a_peer_that_is_silent_is_given_up_and_found_again(stand_in, proxy, monkeypatch):
    server = stand_in(echo)
    link = proxy(server.port)
    patient = expertd.Client(link.endpoint, timeout=PATIENCE, retry_for=PATIENCE)
    patient.forward("e.0", [X])
    connection = transport().connection(link.endpoint)
    link.open.clear()
    monkeypatch.setattr("expertd.connection.HEARTBEAT_MS", 100)  # not before: a slow machine may be as silent as that
    call = patient.start_backward("e.0", [X], [X])
    with pytest.raises(expertd.Unavailable):  # at its loss, though the connection still stands as the kernel sees it
        expertd.Client(link.endpoint, timeout=PATIENCE, retry_for=0).forward("e.0", [X])
    assert connection.losses > 0 and connection.is_down() and not call.done()
    monkeypatch.undo()
    link.open.set()
    assert torch.equal(patient.outputs(call)[0], X)
    assert torch.equal(patient.forward("e.0", [X])[0], X)
    assert link.accepted > 1 and connection.in_flight() == 0


class Endless:
    """A server that answers each connection's first request with a message that does not end: `enough` bytes of it."""

    def __init__(self, frame, enough):
        self.block, self.enough = frame * ((1 << 18) // len(frame)), enough
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "tcp://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.accepted, self.closed = 0, threading.Event()  # the first connection, by the client
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with contextlib.suppress(OSError):  # stopped
            while True:
                connection = self.listener.accept()[0]
                self.accepted += 1
                self.serve(connection)
                self.closed.set()
                connection.close()

    def serve(self, connection):
        ready = b"\x05READY\x0bSocket-Type\0\0\0\x06ROUTER"
        connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\0" + b"NULL".ljust(52, b"\0") + b"\x04" + bytes([len(ready)]) + ready)
        received = b""
        while len(received) < 66 or len(received) <= 66 + received[65]:  # the request begins
            received += connection.recv(4096)
        try:
            for _ in range(self.enough // len(self.block)):
                connection.sendall(self.block)
            while connection.recv(4096):
                pass
        except ConnectionError:
            pass

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()


@pytest.mark.parametrize("frame", [b"\x01\0", b"\x01\xff" + b"x" * 255])
def test_a_server_that_sends_without_end_is_left_and_others_notice_nothing(stand_in, monkeypatch, frame):
    monkeypatch.setattr("expertd.credit._used", 16 << 20)
    other, server = expertd.Client(stand_in(echo).endpoint, timeout=PATIENCE), Endless(frame, 64 << 20)
    assert torch.equal(other.forward("e.0", [X])[0], X)
    client = expertd.Client(server.endpoint, timeout=PATIENCE, retry_for=PATIENCE)
    with pytest.raises(expertd.Unavailable, match="a message that does not end"):
        client.outputs(client.start_forward("e.0", [X]))
    assert server.closed.wait(PATIENCE)
    assert torch.equal(other.forward("e.0", [X])[0], X)
    assert transport().connection(other.endpoint).losses == 0
    server.stop()


def test_who_was_left_is_connected_to_again_for_a_call_after_longer_and_longer_pauses(monkeypatch):
    monkeypatch.setattr("expertd.credit._used", 16 << 20)
    monkeypatch.setattr("expertd.connection.ENDLESS_PAUSE", 30.0)
    server = Endless(b"\x01\xff" + b"x" * 255, 64 << 20)
    patient, impatient = [expertd.Client(server.endpoint, timeout=PATIENCE, retry_for=wait) for wait in (PATIENCE, 0)]
    connection = transport().connection(server.endpoint)
    for client, accepted in ((patient, 1), (impatient, 2), (patient, 3)):
        with pytest.raises(expertd.Unavailable, match="a message that does not end"):
            client.forward("e.0", [X])
        assert server.accepted == accepted and connection._left_for == (30.0 if accepted == 1 else 60.0)
        with pytest.raises(expertd.Unavailable, match="a message that does not end"):
            impatient.forward("e.0", [X])  # in the pause: at once
        assert connection.tick(time.monotonic()) is None and connection.is_down()  # without a call nothing is due
        assert server.accepted == accepted and connection.socket is None
        assert not any(events & select.POLLNVAL for _, events in connection._poll.poll(0))  # who waits does so asleep
        with connection.lock:  # it ends; after the second one while the third call waits for it
            connection._left_until = connection._reopen_at = time.monotonic() + (0.2 if accepted == 2 else 0.0)
    server.stop()


@pytest.mark.parametrize("kind", [SERVER, DHT])
def test_what_may_be_a_message_as_slow_as_heartbeats_is_asked_about(stand_in, kind):
    server = stand_in(lambda request, frames: (messages.dht.Reply(version=1), []))
    connection = transport().connection(server.endpoint, kind)
    end = time.monotonic() + PATIENCE
    while connection.state != UP:
        assert time.monotonic() < end
        time.sleep(0.01)
    with connection.lock:
        connection._credit._pings = connection._credit.most_bytes
    while connection._credit._pings:  # until it is answered
        assert time.monotonic() < end
        connection.tick(time.monotonic())
        time.sleep(0.01)
    assert connection.state == UP and connection.losses == connection.late_replies == connection.malformed_replies == 0


def test_what_a_server_may_send(monkeypatch):
    mib = 1 << 20
    monkeypatch.setattr("expertd.credit.memory_own", lambda: own[0])
    one, own = credit.Credit(32 * mib), [mib]
    for received in range(0, 1000 * mib, 20 * mib):  # whole messages, each seen when half of it and all has come
        assert not one.is_used_up(received, 0) and not one.is_used_up(received + 20 * mib, 0)
        one.taken = True
    assert not one.is_used_up(1000 * mib, 0) and not one.is_used_up(1032 * mib, 0) and one.is_used_up(1032 * mib + 1, 0)
    one.begin(0)
    assert not one.is_used_up(0, 0) and not one.is_used_up(2 * mib, 0)
    own[0] += 32 * mib
    assert not one.is_used_up(4 * mib, 0)
    own[0] += 1
    assert one.is_used_up(4 * mib, 0)
    own[0] = 0  # is not known now
    assert not one.is_used_up(4 * mib, 0)
    own[0] = 100 * mib
    one.taken = True
    assert not one.is_used_up(4 * mib, 0)  # the program's own
    assert not one.is_used_up(6 * mib, 0)
    own[0] += 100 * mib
    assert not one.is_used_up(7 * mib, 0)  # of which frames cannot have made so much


def test_heartbeats_of_a_year_are_no_message(monkeypatch):
    monkeypatch.setattr("expertd.credit.memory_own", lambda: 0)
    one = credit.Credit(64 << 20, 2)
    one.begin(5)
    for day in range(1, 366):
        assert not one.is_used_up(day * 43200 * 100, 5 + day * 86400)
    received, now = 365 * 43200 * 100, 5 + 365 * 86400
    assert not one.is_used_up(received + (64 << 20), now) and one.is_used_up(received + (64 << 20) + 1, now)


def test_what_comes_like_heartbeats_is_no_longer_left_out_when_a_question_is_not_answered(monkeypatch):
    monkeypatch.setattr("expertd.credit.memory_own", lambda: 0)
    one, received, now = credit.Credit(32 << 20, 1), 0, 0
    for round in range(2):
        before = received
        while not one.in_doubt():
            received, now = received + 100, now + 1
            assert not one.is_used_up(received, now)
        assert 1 << 20 < received - before <= (1 << 20) + 200
        one.asked = True
        assert not one.in_doubt()
        one.taken = round == 0  # an answer
    most = received + (32 << 20)
    while received + 100 <= most:
        received, now = received + 100, now + 1
        assert not one.is_used_up(received, now)
    assert one.is_used_up(received + 100, now + 1)


def test_memory_is_not_known_where_it_cannot_be_read(monkeypatch):
    def no_more(*args):
        raise OSError(24, "no more descriptors")
    monkeypatch.setattr("builtins.open", no_more)
    assert credit.memory_own() == 0 and credit.memory_limit() > 0


def test_where_a_group_has_its_limit(tmp_path):
    file = tmp_path / "cgroup"
    for text, paths in (("0::/init\n", ["/init/memory.max", "/memory.max"]), ("0::/\n", ["/memory.max"]),
                        ("5:cpu:/x\n4:hugetlb,memory:/a/b\n", ["/memory/a/b/memory.limit_in_bytes", "/memory/a/memory.limit_in_bytes",
                                                             "/memory/memory.limit_in_bytes"])):
        file.write_text(text)
        assert list(credit._limits(str(file))) == ["/sys/fs/cgroup" + path for path in paths]


def test_how_much_that_is(monkeypatch):
    for memory, most in ((1, 64 << 20), (1 << 30, 256 << 20), (1 << 50, 2 << 30)):
        monkeypatch.setattr("expertd.credit.memory_limit", lambda: memory)
        assert credit.most() == most
    monkeypatch.setenv("EXPERTD_MAX_MESSAGE", "\N{SUPERSCRIPT TWO}")
    assert credit.most() == 2 << 30
    monkeypatch.setenv("EXPERTD_MAX_MESSAGE", "123")
    assert credit.most() == 123
    credit.use(456)
    assert credit.most() == 456
    credit.use(0)
    with pytest.raises(ValueError):
        credit.use(-1)
