"""A server with several frontends: a call at the wrong one goes on at the one that it names."""
import threading

import pytest
import torch

import expertd
from conftest import PATIENCE, StandIn
from expertd import keys, messages
from expertd.parts import start_all
from expertd.task import Task
from expertd.transport import followable, transport

OK, NOT_FOUND = 0, 5


class Frontends:
    """Two stand-ins: `right` has every expert that is in `there`, and `home` names it for those it has not itself."""

    def __init__(self):
        self.there, self.here, self.named = {"nop.0"}, set(), None
        self.home, self.right = StandIn(self.answer_home), StandIn(self.answer_right)

    def answer(self, request, frames):
        half = len(request.tensors) // (2 if request.method == messages.server.value("Method", "BACKWARD") else 1)
        return messages.server.ReplyHeader(version=1, status=OK, tensors=request.tensors[:half]), frames[:half]

    def answer_parts(self, request, frames, known, names=""):
        """Zeros for what is not there, of which `names` says where it is."""
        header, (frame, *more) = self.answer(request, frames)
        values, at = torch.frombuffer(bytearray(frame), dtype=torch.float32).reshape(-1, 4), 0
        for part in request.parts:
            found = part.uid in known
            header.parts.add(status=OK if found else NOT_FOUND, message="" if found else "it is not here", frontend=int(bool(names) and not found))
            if not found:
                values[at:at + part.rows] = 0
            at += part.rows
        if names:
            header.endpoints.append(names)
        if all(part.status for part in header.parts):
            return messages.server.ReplyHeader(version=1, status=NOT_FOUND, parts=header.parts, endpoints=header.endpoints), []
        return header, [values.numpy().tobytes(), *more]

    def answer_home(self, request, frames):
        if request.parts:
            return self.answer_parts(request, frames, self.here, self.right.endpoint if self.named is None else self.named)
        if request.uid in self.here:
            return self.answer(request, frames)
        endpoint = self.right.endpoint if self.named is None else self.named
        return messages.server.ReplyHeader(version=1, status=NOT_FOUND, message="it is elsewhere", endpoint=endpoint), []

    def answer_right(self, request, frames):
        if request.parts:
            return self.answer_parts(request, frames, self.there)
        if request.uid in self.there:
            return self.answer(request, frames)
        return messages.server.ReplyHeader(version=1, status=NOT_FOUND, message="it is not here"), []

    def count(self):
        return len(self.home.requests), len(self.right.requests)


@pytest.fixture
def frontends():
    made = Frontends()
    yield made
    for one in (made.home, made.right):
        one.stop()


X = torch.arange(8, dtype=torch.float32).reshape(2, 4)


def client_of(frontends):
    return expertd.Client(frontends.home.endpoint, timeout=PATIENCE, retry_for=PATIENCE)


def test_a_call_follows_and_the_next_goes_there_at_once(frontends):
    client = client_of(frontends)
    for turn in range(1, 4):
        assert torch.equal(client.forward("nop.0", [X])[0], X)
        assert frontends.count() == (1, turn)
    assert torch.equal(client.backward("nop.0", [X], [X])[0], X)
    assert frontends.count() == (1, 4)


def test_what_is_not_there_any_more_is_looked_for_at_home(frontends):
    client = client_of(frontends)
    client.forward("nop.0", [X])
    frontends.there, frontends.here = set(), {"nop.0"}
    assert torch.equal(client.forward("nop.0", [X])[0], X)
    assert frontends.count() == (2, 2)
    client.forward("nop.0", [X])
    assert frontends.count() == (3, 2)


def test_nobody_is_sent_round_in_circles(frontends):
    frontends.there = set()
    client = client_of(frontends)
    with pytest.raises(expertd.NotFound, match="it is not here"):
        client.forward("nop.0", [X])
    assert frontends.count() == (1, 1)
    frontends.named = frontends.home.endpoint
    with pytest.raises(expertd.NotFound, match="it is elsewhere"):
        client.forward("nop.0", [X])


def test_who_names_the_one_that_was_asked_takes_no_place_among_those_that_are_followed(frontends):
    frontends.named, frontends.here = frontends.home.endpoint, {"nop.0"}
    made = [Task(name, [frontends.home.endpoint], [X], None, timeout=PATIENCE, retry_for=0, patient=False) for name in ("nop.0", "nop.8", "nop.9")]
    start_all(made)
    assert torch.equal(made[0].outputs()[0], X)
    for task in made[1:]:
        with pytest.raises(expertd.NotFound):
            task.outputs()
    process, home = transport(), frontends.home.endpoint
    assert (home, home) not in process._followed and not any(there == home for there in process.routes.values())
    assert frontends.count() == (1, 0)


@pytest.mark.parametrize("named", ["tcp://*:1", "inproc://x", "nonsense", "tcp://", "tcp://" + "x" * 300 + ":1"])
def test_what_is_no_endpoint_is_not_followed(frontends, named):
    frontends.named = named
    with pytest.raises(expertd.NotFound, match="it is elsewhere"):
        client_of(frontends).forward("nop.0", [X])


def test_sockets_of_this_host_are_named_by_servers_of_this_host_alone():
    assert followable("ipc:///x", "tcp://127.0.0.1:1") and not followable("ipc:///x", "tcp://10.0.0.7:1")
    assert not followable("ipc:///x", "tcp://127.example.org:1") and not followable("ipc:///x", "tcp://127.0.0.1.example.org:1")
    assert followable("tcp://10.0.0.8:1", "tcp://10.0.0.7:1")


@pytest.mark.parametrize("names", [["nop.0"], ["nop.0", "nop.1"]])
def test_a_frontend_that_is_down_is_asked_for_nothing_any_more(frontends, names):
    frontends.there = set(names)

    def tasks():
        made = [Task(name, [frontends.home.endpoint], [X], None, timeout=PATIENCE, retry_for=0, patient=False) for name in names]
        start_all(made)
        return made
    for _ in range(2):
        for task in tasks():
            assert torch.equal(task.outputs()[0], X)
    assert [bool(request.parts) for request in frontends.right.requests[-1:]] == [len(names) > 1]
    frontends.right.stop()
    for task in tasks():
        with pytest.raises(expertd.Unavailable):
            task.outputs()
    frontends.right = StandIn(frontends.answer_right)  # the experts have gone on to another one
    for task in tasks():
        assert torch.equal(task.outputs()[0], X)


def tasks_of(frontends, names, backward=False):
    made = [Task(name, [frontends.home.endpoint], [X + number], [X] if backward else None, timeout=PATIENCE, retry_for=0, patient=False)
            for number, name in enumerate(names)]
    start_all(made)
    for number, task in enumerate(made):
        assert torch.equal(task.outputs()[0], X + number)


@pytest.mark.parametrize("backward", [False, True])
def test_parts_go_on_together_and_then_go_there_at_once(frontends, backward):
    names = ["nop.0", "nop.1", "nop.2", "nop.3"]
    frontends.there, frontends.here = {"nop.0", "nop.3"}, {"nop.1", "nop.2"}
    for turn in range(1, 4):
        tasks_of(frontends, names, backward)
        assert frontends.count() == (turn, turn)
        assert [len(request.parts) for request in frontends.right.requests] == [2] * turn
    assert [len(request.parts) for request in frontends.home.requests] == [4, 2, 2]
    ids = {part.uid: part.request_id for part in frontends.home.requests[0].parts}
    for part in frontends.right.requests[0].parts:  # at most once, wherever it is applied
        assert part.request_id == ids[part.uid]


def test_parts_that_are_not_there_any_more_are_looked_for_at_home(frontends):
    names = ["nop.0", "nop.1", "nop.2"]
    frontends.there, frontends.here = {"nop.0", "nop.1"}, {"nop.2"}
    tasks_of(frontends, names)
    frontends.there, frontends.here = {"nop.0"}, {"nop.1", "nop.2"}
    tasks_of(frontends, names)
    tasks_of(frontends, names)
    assert sorted(part.uid for part in frontends.home.requests[-1].parts) == ["nop.1", "nop.2"]
    assert frontends.right.requests[-1].uid == "nop.0"


def test_a_part_that_nobody_has_hurts_no_other(frontends):
    frontends.there, frontends.here = {"nop.0"}, {"nop.1"}
    made = [Task(name, [frontends.home.endpoint], [X], None, timeout=PATIENCE, retry_for=0, patient=False) for name in ("nop.0", "nop.1", "nop.9")]
    start_all(made)
    for task in made[:2]:
        assert torch.equal(task.outputs()[0], X)
    with pytest.raises(expertd.NotFound):
        made[2].outputs()


def test_who_looks_at_a_server_sees_all_of_it(frontends):
    pb = messages.server
    home, right = frontends.home, frontends.right
    home.pong = pb.Pong(server="box-left", software="s", experts=2, experts_alive=2, frontends=[{"server": "box-right", "endpoint": right.endpoint}])
    right.pong = pb.Pong(server="box-right", software="s", experts=3, experts_alive=1)
    lists = {home: [{"uid": "nop.0", "alive": True}, {"uid": "nop.1", "endpoint": right.endpoint}], right: [{"uid": "nop.1", "alive": True}]}
    saved = []

    def answer_as(one):
        def answer(request, frames):
            reply = pb.ReplyHeader(version=1)
            if request.method == pb.value("Method", "LIST"):
                reply.list.CopyFrom(pb.ExpertList(experts=lists[one], total=len(lists[one])))
            elif request.method == pb.value("Method", "STATS"):
                reply.stats.counters.add(name="frontend.in_flight", value=2)
            elif request.method == pb.value("Method", "CHECKPOINT"):
                saved.append(one)
            return reply, []
        return answer
    for one in (home, right):
        one.answer = answer_as(one)
    client = client_of(frontends)
    assert client.ping().frontends == (right.endpoint,)
    assert [one.endpoint for one in client.frontends()] == [home.endpoint, right.endpoint]
    table = expertd.top(home.endpoint, timeout=PATIENCE)
    assert "(2 frontends)" in table.head and "3 of 5 experts alive, 4 requests in flight" in table.head, table.head
    assert {row[0]: row[3] for row in table.rows} == {"nop.0": True, "nop.1": True}
    client.checkpoint()
    assert saved == [home, right] or saved == [right, home]
    client.checkpoint("nop.0")
    assert len(saved) == 3


def test_a_server_names_no_other_servers_endpoint(frontends, monkeypatch):
    right, other = frontends.right.endpoint, "tcp://127.0.0.1:1"
    home = transport().connection(frontends.home.endpoint)
    for name in ("_learned", "_inherited"):
        monkeypatch.setattr(keys, name, {})
    monkeypatch.setattr(home, "server_key", b"")
    keys.learn(right, bytes(32))
    assert transport().follow(home.endpoint, "nop.0", right) is None  # which is known to have another key
    keys._learned.clear()
    assert keys.same(other, home.endpoint, b"") and not keys._inherited
    keys.learn(home.endpoint, bytes(range(32)))
    key = keys._learned[home.endpoint].encode()
    assert keys.same(other, home.endpoint, key) and keys._inherited[other].encode() == key
    keys.learn(other, bytes(32))  # goes before what the server says
    assert keys.is_outdated(other, key) and not keys.same(other, home.endpoint, key)
    monkeypatch.setattr(home, "server_key", key)
    keys._learned.pop(right, None)
    transport().connection(right)
    assert transport().follow(home.endpoint, "nop.0", right) is None  # which is connected to without that key


def test_many_threads_and_callbacks(frontends):
    frontends.there = {f"nop.{i}" for i in range(50)}
    client, errors, called = client_of(frontends), [], threading.Semaphore(0)

    def run(number):
        try:
            for i in range(number, 50, 5):
                assert torch.equal(client.forward(f"nop.{i}", [X])[0], X)
                client.start_forward(f"nop.{i}", [X]).add_done_callback(lambda call: called.release())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    for _ in range(50):
        assert called.acquire(timeout=PATIENCE)


def test_a_call_that_has_gone_on_can_be_given_up(frontends):
    frontends.right.answer = lambda request, frames: None  # never
    call = client_of(frontends).start_forward("nop.0", [X])
    deadline = threading.Event()
    while not frontends.right.requests:
        deadline.wait(0.01)
    assert call.cancel() and not call.cancel()
    assert not transport().connection(frontends.right.endpoint).calls
