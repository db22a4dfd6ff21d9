"""Many experts of one server in one message: what becomes of each part."""
import pytest
import torch

import expertd
from conftest import PATIENCE, echo, refusal
from expertd import messages
from expertd.gather import Settings, Target, call_many
from expertd.parts import MOST_BYTES, _joined, start_all
from expertd.task import Task
from expertd.transport import transport

SHAPE = [(torch.float32, (4,))]
BOTH = Settings(forward_timeout=PATIENCE, backward_timeout=PATIENCE, allow_zero_outputs=True)


def targets(endpoint, *names, rows=1, **options):
    return [[Target(name, (endpoint,), **options) for name in names]] * rows


def with_statuses(request, frames, statuses):
    """As echo, where these parts have another status than OK, and zeros."""
    header, _ = echo(request, frames)
    x = torch.frombuffer(bytearray(frames[0]), dtype=torch.float32).reshape(tuple(request.tensors[0].shape)).clone()
    at = 0
    for part, result in zip(request.parts, header.parts):
        result.status = statuses.get(part.uid, 0)
        result.message = "why not" if result.status else ""
        x[at:at + part.rows] *= result.status == 0
        at += part.rows
    if all(result.status for result in header.parts):
        header.status = header.parts[0].status
        del header.tensors[:]
        return header, []
    return header, [x.numpy().tobytes()]


def test_a_part_that_fails_fails_its_expert_alone(stand_in):
    statuses = {"e.1": 5, "e.3": 4}
    one, x = stand_in(lambda request, frames: with_statuses(request, frames, statuses)), torch.randn(3, 4, requires_grad=True)
    names = [f"e.{i}" for i in range(5)]
    mask, y = call_many(targets(one.endpoint, *names, rows=3), BOTH, SHAPE, x)
    assert mask.tolist() == [[True, False, True, False, True]] * 3 and torch.equal(y[:, 2], x) and not y[:, 1].any()
    (request,) = one.asked("FORWARD")
    assert [(part.uid, part.rows) for part in request.parts] == [(name, 3) for name in names] and request.uid == ""
    # The server's deadline is before the client's: what is in time comes although something is not.
    assert PATIENCE * 1000 / 2 < request.deadline_ms <= PATIENCE * 1000 - 500
    statuses.update({"e.0": 13})
    y.sum().backward()
    (request,) = one.asked("BACKWARD")
    assert [part.uid for part in request.parts] == ["e.0", "e.2", "e.4"]
    assert len({part.request_id for part in request.parts}) == 3
    assert torch.equal(x.grad, 2 * x.detach())  # a stand-in's gradient is its first input
    statuses.update(dict.fromkeys(names, 13))
    with pytest.raises(TimeoutError, match="k_min is 1: INTERNAL: why not"):
        call_many(targets(one.endpoint, *names), BOTH, SHAPE, x[:1])


def test_what_may_have_been_applied_is_repeated_alone_under_its_id(stand_in):
    def answer(request, frames):
        if request.parts:
            return with_statuses(request, frames, {"e.1": 14, "e.2": 8})
        return echo(request, frames)
    one, x = stand_in(answer), torch.randn(2, 4)
    tasks = [Task(f"e.{i}", [one.endpoint], [x], [x], timeout=PATIENCE, retry_for=PATIENCE, patient=False) for i in range(3)]
    start_all(tasks)
    for task in tasks:
        assert torch.equal(task.outputs()[0], x)
    together, *alone = one.asked("BACKWARD")
    ids = {part.uid: part.request_id for part in together.parts}
    assert {request.uid: request.request_id for request in alone} == {uid: ids[uid] for uid in ("e.1", "e.2")}
    assert all(request.client_id == together.client_id for request in alone)
    # Of a forward that is not patient, nothing is repeated: others are asked.
    forward = [Task(f"e.{i}", [one.endpoint], [x], None, timeout=PATIENCE, retry_for=PATIENCE, patient=False) for i in range(3)]
    start_all(forward)
    with pytest.raises(expertd.Unavailable, match="e.1"):
        forward[1].outputs()
    with pytest.raises(expertd.ResourceExhausted, match="e.2"):
        forward[2].outputs()
    assert torch.equal(forward[0].outputs()[0], x) and len(one.asked("FORWARD")) == 1


def test_failed_parts_go_on_together_at_the_next_server(stand_in):
    first = stand_in(lambda request, frames: with_statuses(request, frames, {"e.0": 5, "e.2": 5}))
    second, x = stand_in(echo), torch.randn(2, 4)
    for grads in (None, [x]):  # forward; backward
        tasks = [Task(f"e.{i}", [first.endpoint, second.endpoint], [x], grads, timeout=PATIENCE, retry_for=0, patient=False) for i in range(3)]
        ended = []
        start_all(tasks, ended.append)
        assert all(torch.equal(task.outputs()[0], x) for task in tasks) and {task.uid for task in ended} >= {"e.1"}
    for method in ("FORWARD", "BACKWARD"):
        (request,) = second.asked(method)
        assert [part.uid for part in request.parts] == ["e.0", "e.2"]
    first.stop()
    third = stand_in(echo)
    tasks = [Task(f"e.{i}", ["tcp://127.0.0.1:1", third.endpoint], [x], None, timeout=PATIENCE, retry_for=0, patient=False) for i in range(3)]
    start_all(tasks)
    assert all(torch.equal(task.outputs()[0], x) for task in tasks)
    assert [len(request.parts) for request in third.asked("FORWARD")] == [3]
    first.stop = lambda: None


@pytest.mark.parametrize("says", [True, False])  # where many parts are refused, there is no room for the last ones' messages
def test_experts_of_another_frontend_are_found_there_and_then_asked_there_together(stand_in, says):
    def answer(request, frames):
        if request.parts and any(part.uid == "e.0" for part in request.parts):
            header, out = with_statuses(request, frames, {"e.1": 5, "e.2": 5})
            for result in header.parts[1:]:
                result.message = f"it is at {second.endpoint}" if says else ""
            return header, out
        if request.uid == "e.0":
            return echo(request, frames)
        header, out = refusal(5)
        header.endpoint = second.endpoint
        return header, out
    first, second, x = stand_in(answer), stand_in(echo), torch.randn(1, 4)
    for _ in range(2):
        mask, y = call_many(targets(first.endpoint, "e.0", "e.1", "e.2"), BOTH, SHAPE, x)
        assert mask.all() and torch.equal(y[0, 2], x[0])
    assert [sorted(part.uid for part in r.parts) or [r.uid] for r in second.asked("FORWARD")] in (
        [["e.1"], ["e.2"], ["e.1", "e.2"]], [["e.2"], ["e.1"], ["e.1", "e.2"]])


@pytest.mark.parametrize("unanswered", ["part", "message"])
def test_what_may_have_been_applied_at_one_frontend_goes_to_no_replica(stand_in, unanswered):
    """Whatever is said of it later: it was sent before, and what became of it is not known."""
    def answer_home(request, frames):
        header, out = refusal(5, f"it is at {right.endpoint}")
        header.endpoint = right.endpoint
        for _ in request.parts:
            header.parts.add(status=5)
        return header, out

    def answer_right(request, frames):
        backward = request.method == messages.server.value("Method", "BACKWARD")
        if not backward:
            return echo(request, frames)
        if not request.parts:
            return refusal(5, "it is not here any more")
        if unanswered == "part":
            return with_statuses(request, frames, dict.fromkeys(["e.0", "e.1"], 14))
        return refusal(14 if len(right.asked("BACKWARD")) == 1 else 3)
    home, right, replica, x = stand_in(answer_home), stand_in(answer_right), stand_in(echo), torch.randn(1, 4)

    def begun(grads):
        tasks = [Task(f"e.{i}", [home.endpoint, replica.endpoint], [x], grads, timeout=PATIENCE, retry_for=0, patient=False) for i in range(2)]
        start_all(tasks)
        return tasks
    for task in begun(None):
        assert torch.equal(task.outputs()[0], x)
    for task in begun([x]):
        with pytest.raises(expertd.NotFound) as caught:
            task.outputs()
        assert not caught.value.not_applied
    assert not replica.asked("BACKWARD")
    ids = {part.uid: part.request_id for part in right.asked("BACKWARD")[0].parts}
    alone = [request for request in right.asked("BACKWARD") if not request.parts]
    assert {request.uid for request in alone} == {"e.0", "e.1"} and all(request.request_id == ids[request.uid] for request in alone)


def test_a_server_that_knows_no_parts_is_asked_one_by_one_from_then_on(stand_in):
    one, x = stand_in(lambda request, frames: echo(request, frames) if request.uid else refusal(5, "no expert")), torch.randn(1, 4)
    for _ in range(2):
        mask, y = call_many(targets(one.endpoint, "e.0", "e.1"), BOTH, SHAPE, x)
        assert mask.all() and torch.equal(y[0, 1], x[0])
    assert [request.uid for request in one.asked("FORWARD")] == ["", "e.0", "e.1", "e.0", "e.1"]


def test_what_is_refused_as_a_whole_is_wrong_with_one_of_them(server):
    x = torch.randn(70, 16)
    chosen = [[Target("ffn.0.0", (server.endpoint,)), Target("ffn.1.1", (server.endpoint,))]] * 2
    chosen += [[Target("ffn.0.0", (server.endpoint,))]] * 68  # more than the 64 that it takes
    mask, y = call_many(chosen, BOTH, [(torch.float32, (16,))], x)
    assert mask.sum() == 2 and mask[:2, 1].all() and y[0, 1].any()


def test_answers_that_contradict_themselves_are_errors(stand_in):
    def answer(request, frames):
        header, out = echo(request, frames)
        kind = next(kinds)
        if kind == "few parts":
            del header.parts[1:]
        elif kind == "few rows":
            header.tensors[0].shape[0] = 1
            out = [frames[0][:16]]
        elif kind == "other columns":
            header.tensors[0].shape[0] = 4
            header.tensors[0].shape[1] = 2
        elif kind == "no rows":
            del header.tensors[0].shape[:]
            out = [frames[0][:4]]
        elif kind == "no tensor's shape":
            header.tensors[0].shape[:] = [0, 1 << 63]
            out = [b""]
        elif kind == "no tensors":
            del header.tensors[:]
            out = []
        elif kind == "a strange status":
            header.parts[0].status = 77
        return header, out
    kinds = iter(["few parts", "no rows", "no tensor's shape", "few rows", "no tensors", "other columns", "a strange status", "no tensors", "other columns"])
    one, x = stand_in(answer), torch.randn(1, 4)
    settings = BOTH._replace(k_min=0, backward_k_min=0)
    for names, answered in ((2, 0), (2, 0), (2, 0), (2, 0), (2, 0), (2, 0), (2, 1), (1, 0), (1, 0)):  # also of one expert alone
        mask, _ = call_many(targets(one.endpoint, *["e.0", "e.1"][:names]), settings, SHAPE, x)
        assert int(mask.sum()) == answered
    kinds = iter(["right", "no tensors", "right", "few rows"])
    for _ in range(2):
        y = call_many(targets(one.endpoint, "e.0", "e.1"), settings, SHAPE, x.requires_grad_())[1]
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert not gradient.any()


def test_what_cannot_share_a_message_has_its_own(stand_in):
    one, x = stand_in(echo), torch.randn(2, 4)
    call_many(targets(one.endpoint, "e.0", "e.1", rows=2, compression="float16"), BOTH, SHAPE, x)
    call_many(targets(one.endpoint, "e.0", "e.1", rows=2, compression="uniform_8bit"), BOTH, SHAPE, x)  # one table of numbers for all rows
    assert [len(request.parts) for request in one.asked("FORWARD")] == [2, 0, 0]
    call_many(targets(one.endpoint, "e.0", "e.1", rows=2, max_rows=1), BOTH, SHAPE, x)  # an expert is named once
    assert sorted(part.uid for request in one.asked("FORWARD")[3:] for part in request.parts) == ["e.0", "e.0", "e.1", "e.1"]
    assert [len(request.parts) for request in one.asked("FORWARD")[3:]] == [2, 2]
    large = torch.zeros(1, MOST_BYTES // 8)
    many = [Task(f"e.{i}", [one.endpoint], [large if i < 3 else x], None, timeout=PATIENCE, retry_for=0, patient=False) for i in range(600)]
    many.append(Task("nowhere.0", ["no endpoint"], [x], None, timeout=PATIENCE, retry_for=0, patient=False))
    start_all(many)
    assert [len(task.outputs()[0]) for task in many[:-1]] == [1] * 3 + [2] * 597
    with pytest.raises(expertd.InvalidArgument, match="no endpoint"):
        many[-1].outputs()
    sizes = [len(request.parts) for request in one.asked("FORWARD")[5:]]
    assert sum(sizes) == 599 and max(sizes) <= 512 and len(sizes) == 4 and 0 in sizes, sizes


def test_rows_that_lie_behind_each_other_are_not_copied():
    x = torch.randn(8, 4)
    parts = [x[0:3], x[3:4], x[4:8]]
    assert _joined(parts).data_ptr() == x.data_ptr() and torch.equal(_joined(parts), x)
    assert torch.equal(_joined(parts[1:]), x[3:])
    for other in ([x[3:4], x[0:3]], [x[0:3], x[0:3].clone()], [x[:, :2], x[:, 2:]]):
        assert torch.equal(_joined(other), torch.cat(other)) and _joined(other).data_ptr() != x.data_ptr()


def test_giving_up_one_leaves_the_others_and_giving_up_all_ends_the_message(stand_in):
    silent, x = stand_in(lambda request, frames: None), torch.randn(1, 4)
    tasks = [Task(f"e.{i}", [silent.endpoint], [x], None, timeout=PATIENCE, retry_for=0, patient=False) for i in range(2)]
    start_all(tasks)
    tasks[0].cancel()
    tasks[0].cancel()
    assert not tasks[1].done()
    tasks[1].cancel()
    for task in tasks:
        with pytest.raises(expertd.ExpertdError, match="CANCELLED"):
            task.outputs()


def test_an_interrupt_at_any_moment_of_the_sending_leaves_nothing_behind(stand_in, monkeypatch):
    silent, x = stand_in(lambda request, frames: None), torch.randn(1, 4)
    connection = transport().connection(silent.endpoint)
    start, when = connection.start, []

    def interrupted(call, attended=False):
        if when[-1] == "before":
            raise KeyboardInterrupt
        start(call, attended)
        raise KeyboardInterrupt
    monkeypatch.setattr(connection, "start", interrupted)
    for moment in ("before", "after"):
        when.append(moment)
        with pytest.raises(KeyboardInterrupt):
            call_many(targets(silent.endpoint, "e.0", "e.1"), Settings(), SHAPE, x)  # without a timeout
        assert connection.in_flight() == 0
