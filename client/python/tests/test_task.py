"""What goes wrong on the way to a server, on this side: it ends the call that it was about, with an error that says what; the
thread that it happens on looks after the others' calls as before."""
import errno
import os
import threading
import time

import pytest
import torch
import zmq

import expertd
from conftest import PATIENCE, echo, refusal
from expertd import keys, messages
from expertd.call import Call
from expertd.client import Client
from expertd.parts import start_all
from expertd.task import Task
from expertd.transport import Transport, transport

X = torch.arange(8.0).reshape(2, 4)
NOT_FOUND, FULL, UNAVAILABLE = 5, 8, 14


def begin(endpoints, **options):
    ended = threading.Event()
    task = Task("e.0", endpoints, [X], None, **{"timeout": PATIENCE, "retry_for": PATIENCE, "patient": True, **options})
    return task.start(lambda _: ended.set()), ended


def still_served(endpoint):
    """The I/O thread takes in an answer for which no thread waits."""
    task, ended = begin([endpoint])
    assert ended.wait(PATIENCE) and torch.equal(task.outputs()[0], X)


def test_a_key_that_is_gone_when_the_next_server_is_turned_to_is_that_calls_error(stand_in, tmp_path):
    here, there, fine = stand_in(lambda request, frames: refusal(NOT_FOUND)), stand_in(echo), stand_in(echo)
    for endpoint in (here.endpoint, fine.endpoint):
        transport().connection(endpoint)
    path = tmp_path / "server.key"
    public, _ = zmq.curve_keypair()
    path.write_text(f'metadata\ncurve\n    public-key = "{public.decode()}"\n')
    keys.use(str(path))
    try:
        path.unlink()
        for retried in (0.0, PATIENCE):
            task, ended = begin([here.endpoint, there.endpoint], retry_for=retried)
            assert ended.wait(PATIENCE)
            with pytest.raises(expertd.ExpertdError, match="cannot be made") as caught:
                task.outputs()
            assert caught.value.endpoint == there.endpoint and isinstance(caught.value.__cause__, (OSError, ValueError))
        # Where there is a third, that one is asked.
        task, ended = begin([here.endpoint, there.endpoint, fine.endpoint])
        assert ended.wait(PATIENCE) and torch.equal(task.outputs()[0], X)
    finally:
        keys.use(None)
    still_served(there.endpoint)


@pytest.mark.parametrize("failure, kind", [
    (OSError(errno.EMFILE, "Too many open files"), expertd.Unavailable), (MemoryError(), expertd.Internal), (KeyError("x"), expertd.Internal),
    (zmq.ZMQError(errno.EMFILE), expertd.Unavailable), (ValueError("y"), expertd.InvalidArgument)])
def test_whatever_is_raised_on_the_io_thread_ends_the_task_that_it_was_about(stand_in, monkeypatch, failure, kind):
    here, there = stand_in(lambda request, frames: refusal(NOT_FOUND)), stand_in(echo)

    def fail(self, *args, **kwargs):
        raise failure
    with monkeypatch.context() as patch:
        original = Client.prepare
        patch.setattr(Client, "prepare", lambda self, *args, **kwargs: (fail if self.endpoint == there.endpoint else original)(self, *args, **kwargs))
        task, ended = begin([here.endpoint, there.endpoint])
        assert ended.wait(PATIENCE)
        with pytest.raises(kind) as caught:
            task.outputs()
        assert caught.value.__cause__ is failure
    for what in ("fail", "_end"):  # and what comes of an answer
        with monkeypatch.context() as patch:
            ended = threading.Event()
            task = Task("e.0", [here.endpoint], [X], None, timeout=PATIENCE, retry_for=0, patient=False)
            original, raised = getattr(task, what), []

            def once(*args):
                if not raised:
                    raised.append(True)
                    raise failure
                return original(*args)
            patch.setattr(task, what, once)
            task.start(lambda _: ended.set())
            assert ended.wait(PATIENCE)
            with pytest.raises(kind):
                task.outputs()
    still_served(there.endpoint)


def test_of_many_experts_in_one_message_each_hears_of_it(stand_in, monkeypatch):
    there = stand_in(echo)
    failure = OSError(errno.EMFILE, "Too many open files")

    def many():
        left, ended = threading.Semaphore(0), []
        tasks = [Task(f"e.{i}", [there.endpoint], [X], None, timeout=PATIENCE, retry_for=PATIENCE, patient=True) for i in range(3)]
        start_all(tasks, lambda task: (ended.append(task), left.release()))
        for _ in tasks:
            assert left.acquire(timeout=PATIENCE)
        assert len(set(ended)) == len(ended) == 3
        return tasks

    def fail(*args, **kwargs):
        raise failure
    for owner, what in ((Client, "prepare_parts"), (Client, "outputs")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, what, staticmethod(fail) if what == "outputs" else fail)
            for task in many():
                with pytest.raises(expertd.ExpertdError) as caught:
                    task.outputs()
                assert "open files" in str(caught.value)
    assert all(torch.equal(task.outputs()[0], X) for task in many())


def test_a_connection_that_cannot_be_made_anew_is_down_until_it_can_be(stand_in, monkeypatch):
    silent = threading.Event()
    server = stand_in(lambda request, frames: None if silent.is_set() else echo(request, frames))
    at = transport().connection(server.endpoint)
    still_served(server.endpoint)
    silent.set()
    waits, waits_ended = begin([server.endpoint])
    while not server.asked("FORWARD")[1:]:
        time.sleep(0.005)
    impatient, impatient_ended = begin([server.endpoint], retry_for=0, patient=False)

    class NoMore:
        def socket(self, kind):
            raise zmq.ZMQError(errno.EMFILE)
    with monkeypatch.context() as patch:
        patch.setattr(at, "_context", NoMore())
        with at.lock:
            at._reset()
        assert impatient_ended.wait(PATIENCE)
        with pytest.raises(expertd.Unavailable, match="connection was lost"):
            impatient.outputs()
        late, late_ended = begin([server.endpoint], retry_for=0, patient=False)
        assert late_ended.wait(PATIENCE) and late.error.not_applied
        with pytest.raises(expertd.Unavailable, match="no connection can be made: Too many open files"):
            late.outputs()
        assert not waits_ended.is_set() and at.is_down()
        silent.clear()
    assert waits_ended.wait(PATIENCE) and torch.equal(waits.outputs()[0], X)
    assert torch.equal(Client(server.endpoint, timeout=PATIENCE).forward("e.0", [X])[0], X)


def test_a_first_connection_without_descriptors_is_refused_and_leaves_none_behind(stand_in, monkeypatch):
    server, process = stand_in(echo), transport()
    still_served(stand_in(echo).endpoint)
    context = process._context

    class Few:
        """Sockets, until there are no more."""

        def __init__(self, left):
            self.left = left

        def socket(self, kind):
            self.left -= 1
            if self.left < 0:
                raise zmq.ZMQError(errno.EMFILE)
            return context.socket(kind)
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(process, "_context", Few(0))
    for _ in range(3):
        with pytest.raises(expertd.Unavailable, match="no connection can be made"):
            Client(server.endpoint)
    monkeypatch.undo()
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1  # that of listdir
    still_served(server.endpoint)


def test_a_thread_that_cannot_be_started_is_started_by_the_next_call(stand_in, monkeypatch):
    server, own = stand_in(echo), Transport()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
            with pytest.raises(RuntimeError):
                own.connection(server.endpoint)
        assert own.connection(server.endpoint) is own.connection(server.endpoint)
        assert own._thread.is_alive()
    finally:
        own.close()


def test_a_call_that_cannot_go_on_at_another_frontend_ends(stand_in, monkeypatch):
    def moved(request, frames):
        header, _ = refusal(NOT_FOUND)
        header.endpoint = "tcp://127.0.0.1:1"
        return header, []
    server, fine = stand_in(moved), stand_in(echo)

    def fail(*args):
        raise KeyError("follow")
    monkeypatch.setattr(transport(), "follow", fail)
    task, ended = begin([server.endpoint])
    assert ended.wait(PATIENCE)
    with pytest.raises(expertd.Internal, match="follow"):
        task.outputs()
    with pytest.raises(expertd.Internal, match="follow"):
        Client(server.endpoint, timeout=PATIENCE).forward("e.0", [X])
    still_served(fine.endpoint)


def fails_once_it_has_sent(at, patch):
    """The next backward goes out there, and what follows in Connection.start fails."""
    pump, raised = at._pump, []

    def pump_and_fail():
        pump()
        if not raised and any(call.backward and call.ever_sent for call in at.calls.values()):
            raised.append(True)
            raise MemoryError()
    patch.setattr(at, "_pump", pump_and_fail)
    return raised


def cannot_be_waited_for(patch):
    """A call is on its way, and its task cannot be told of its end."""
    tell = Call.add_done_callback

    def fail(call, function):
        if call.backward and not call.parts:
            raise MemoryError()
        tell(call, function)
    patch.setattr(Call, "add_done_callback", fail)


@pytest.mark.parametrize("fails", [fails_once_it_has_sent, lambda at, patch: cannot_be_waited_for(patch)])
def test_a_backward_that_was_sent_before_its_start_failed_goes_to_no_other_server(stand_in, monkeypatch, fails):
    backward = messages.server.value("Method", "BACKWARD")
    here, there = stand_in(lambda request, frames: None if request.method == backward else echo(request, frames)), stand_in(echo)
    still_served(here.endpoint)
    at = transport().connection(here.endpoint)
    with monkeypatch.context() as patch:
        fails(at, patch)
        task = Task("e.0", [here.endpoint, there.endpoint], [X], [X], timeout=PATIENCE, retry_for=0, patient=False).start()
        with pytest.raises(expertd.Internal) as caught:
            task.outputs()
    assert not caught.value.not_applied and caught.value.endpoint == here.endpoint
    assert isinstance(caught.value.__cause__, MemoryError)
    assert not at.calls and not there.requests
    still_served(here.endpoint)


def test_a_repeated_part_that_nobody_can_wait_for_goes_to_no_other_server(stand_in, monkeypatch):
    def full(request, frames):
        return messages.server.ReplyHeader(version=1, status=FULL, message="full", parts=[{"status": FULL, "message": "full"} for _ in request.parts]), []
    here, there = stand_in(full), stand_in(echo)
    tasks = [Task(f"e.{i}", [here.endpoint, there.endpoint], [X], [X], timeout=PATIENCE, retry_for=0, patient=False) for i in range(2)]
    with monkeypatch.context() as patch:
        cannot_be_waited_for(patch)
        start_all(tasks)
        for task in tasks:
            with pytest.raises(expertd.ResourceExhausted) as caught:
                task.outputs()
            assert not caught.value.not_applied
    assert not transport().connection(here.endpoint).calls and not there.requests


def test_a_backward_that_was_sent_at_another_frontend_may_be_applied_there(stand_in, monkeypatch):
    there = stand_in(lambda request, frames: None if request.uid == "e.1" else echo(request, frames))

    def moved(request, frames):
        header, _ = refusal(NOT_FOUND)
        header.endpoint = there.endpoint
        return header, []
    home = stand_in(moved)
    still_served(there.endpoint)
    with monkeypatch.context() as patch:
        raised = fails_once_it_has_sent(transport().connection(there.endpoint), patch)
        with pytest.raises(expertd.Internal) as caught:
            Client(home.endpoint, timeout=PATIENCE).backward("e.1", [X], [X])
    assert raised and not caught.value.not_applied
