"""A KeyboardInterrupt, which may come between any two instructions, costs the call that it hits and nothing else."""
import dis
import os
import sys
import threading
import time

import pytest
import torch
from zmq.utils import garbage

import expertd
from conftest import PATIENCE, echo, in_threads
from expertd import connection, local
from expertd import transport as module
from expertd.transport import transport

HERE = os.path.dirname(expertd.__file__)
X = torch.randn(64, 1024)  # above what is copied into a frame


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(params=["shared memory", "zeromq"])
def patient(server, request):
    """A client by a connection of this file's own: an address may be written in several ways."""
    near = request.param == "shared memory"
    local.use(None if near else 0)
    try:
        yield expertd.Client(server.endpoint.replace("127.0.0.1", "127.0.1" if near else "127.1"), timeout=PATIENCE, retry_for=PATIENCE)
    finally:
        local.use(None)


def settle(client):
    """It goes the way that it is to go."""
    def answers():
        assert torch.equal(client.forward("nop.0", [X])[0], X)
        return client.local or "127.1:" in client.endpoint
    until(answers)


class Interrupt:
    """In a `with`: raises KeyboardInterrupt behind the first call in the package's code that is not among `known`, to which it
    is added. Behind calls is where CPython looks for signals."""

    def __init__(self, known):
        self.known, self.at, self.called = known, None, {}

    def __enter__(self):
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def trace(self, frame, event, _):
        code = frame.f_code
        if not code.co_filename.startswith(HERE):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            called = self.called.get(frame)
            self.called[frame] = frame.f_lasti if dis.opname[code.co_code[frame.f_lasti]].startswith("CALL") else None
            if called is not None and (code, called) not in self.known:
                self.known.add((code, called))
                self.at = code.co_filename, frame.f_lineno, called
                raise KeyboardInterrupt
        return self.trace


def test_behind_any_call_it_ends_its_own_alone(patient):
    at = transport().connection(patient.endpoint)
    known, told, undisturbed = set(), [], 0
    while undisturbed < 2:  # CPython 3.12 tells of instructions from the second time on
        settle(patient)
        other = patient.start_forward("nop.0", [X + 1])
        other.add_done_callback(told.append)
        with Interrupt(known) as interrupt:
            try:
                assert torch.equal(patient.forward("nop.0", [X])[0], X)
            except KeyboardInterrupt:
                pass
        assert torch.equal(patient.outputs(other)[0], X + 1), interrupt.at
        until(lambda: told == [other])
        told.clear()
        until(lambda: at.in_flight() == 0)
        undisturbed = undisturbed + 1 if interrupt.at is None else 0
    assert len(known) > 100


def test_who_drives_and_is_gone_is_found_missing(patient, monkeypatch):
    monkeypatch.setattr(connection, "DRIVER_GONE", 0.05)
    settle(patient)
    gone = patient.start_forward("nop.0", [X])
    patient.outputs(gone)
    at = transport().connection(patient.endpoint)
    answers = []
    for _ in range(3):
        at._driver, at._driver_thread, at._driven_at, at._paused = gone, 0, time.monotonic(), True
        at._poller.pause(at.fd)
        if at.link is not None:
            at._poller.pause(at.link.fd)
        in_threads(2, lambda number: answers.append(patient.forward("nop.0", [X + number])[0]))
    assert len(answers) == 6


def test_who_drives_and_is_slow_alone_waits_like_others(stand_in, monkeypatch):
    monkeypatch.setattr(connection, "DRIVER_GONE", 0.2)
    go_on = threading.Event()

    def answer(request, frames):
        if request.uid == "slow":
            assert go_on.wait(PATIENCE)
        return echo(request, frames)
    server, x, answers = stand_in(answer), torch.ones(1, 4), []
    client = expertd.Client(server.endpoint, timeout=PATIENCE)
    at = transport().connection(server.endpoint)

    def ask(uid):
        for _ in range(1 if uid == "slow" else 20):
            answers.append(torch.equal(client.forward(uid, [x])[0], x))
    slow = threading.Thread(target=ask, args=("slow",))
    slow.start()
    until(lambda: server.asked("FORWARD"))
    others = [threading.Thread(target=ask, args=("e.0",)) for _ in range(3)]
    for other in others:
        other.start()
        with at.lock:
            at._driven_at = 0.0  # its thread stands still
        at.tick(time.monotonic())
    go_on.set()
    for each in (slow, *others):
        each.join()
    assert answers == [True] * 61


def test_without_room_for_pyzmqs_thread_frames_are_copied(monkeypatch):
    def fail(*_, **__):
        raise OSError("no more descriptors")
    monkeypatch.setattr("zmq.Frame", fail)
    assert not module._prepare_lending()


def test_a_call_of_which_nothing_is_known_any_more_ends_in_time(stand_in):
    silent = stand_in(lambda request, frames: None)
    for driven in (True, False):
        call = expertd.Client(silent.endpoint, timeout=0.2).start_forward("nop.0", [torch.zeros(1, 4)])
        at = transport().connection(silent.endpoint)
        until(lambda: silent.asked("FORWARD"))
        with at.lock:
            at.calls.clear()
            at._driver, at._driven_at = None if driven else call, time.monotonic()
        with pytest.raises(expertd.DeadlineExceeded):
            call.result()


def test_pyzmqs_own_thread_is_not_asked_whether_it_lives(patient, monkeypatch):
    until(lambda: transport().lends)

    def ask(_):
        raise AssertionError("an interrupt here makes it dead")
    monkeypatch.setattr(threading.Thread, "is_alive", ask)
    settle(patient)
    assert garbage.gc.is_alive()
