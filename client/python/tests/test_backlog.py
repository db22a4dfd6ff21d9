"""Calls that a full server has refused, and those made after them: the rule, and the calls against a stand-in."""
import time

import pytest
import torch

import expertd
from conftest import PATIENCE, echo
from expertd import messages
from expertd.backlog import Backlog
from expertd.transport import transport

X = torch.arange(8.0).reshape(2, 4)
HINT, NOW = 0.01, 100.0

# ---- the rule


def backlog_of(waiting, flying=0):
    """The first of its members have been refused and wait, the others are with the server."""
    backlog = Backlog()
    backlog.members.update(range(1, waiting + flying + 1))
    for number in range(1, waiting + 1):
        backlog.refused(number, HINT, NOW)
    return backlog


def try_in_vain(backlog):
    """How many are tried, of which the first is refused again and the others stay."""
    some = backlog.tried(NOW)
    backlog.refused(backlog.take(), HINT, NOW)
    return some


def pause_is(backlog, hints):
    return hints * HINT <= backlog.due - NOW <= 2 * hints * HINT


def test_the_first_of_those_refused_together_sets_the_time():
    backlog = backlog_of(waiting=1, flying=2)
    due = backlog.due
    assert pause_is(backlog, 1)
    backlog.refused(2, 100 * HINT, NOW)
    assert backlog.due == due and len(backlog) == 2 and backlog.flying() == 1


def test_beside_others_as_many_are_tried_and_half_as_many_each_time_that_it_is_in_vain():
    backlog = backlog_of(waiting=100, flying=16)
    for failures, some in enumerate((16, 8, 4, 2, 1, 1, 1)):
        assert try_in_vain(backlog) == some
        assert pause_is(backlog, 2 ** min(failures + 1, 4))  # a longer pause would leave places free


def test_without_others_all_are_tried_and_a_lone_one_less_and_less_often():
    backlog = backlog_of(waiting=10)
    assert backlog.tried(NOW) == 10
    backlog = backlog_of(waiting=1)
    for failures in range(1, 6):
        assert try_in_vain(backlog) == 1 and pause_is(backlog, 2 ** failures)
    for _ in range(10):
        try_in_vain(backlog)
    assert 1.0 <= backlog.due - NOW <= 2.0  # and not for longer


def test_a_try_that_went_well_makes_the_next_one_larger_and_sooner():
    backlog = backlog_of(waiting=100, flying=16)
    for _ in range(3):
        try_in_vain(backlog)
    assert [backlog.tried(NOW) for _ in range(4)] == [2, 8, 16, 16]
    assert pause_is(backlog, 1)


def test_each_answer_lets_one_go_and_two_behind_a_try_that_went_well_until_one_is_refused():
    backlog = backlog_of(waiting=100, flying=3)
    assert backlog.answered() == 1
    backlog.tried(NOW)
    assert [backlog.answered() for _ in range(5)] == [1, 1, 1, 2, 2]  # three were there before it
    backlog.refused(backlog.take(), HINT, NOW)
    assert backlog.answered() == 1


def test_they_stand_in_the_order_in_which_they_were_made_whenever_they_come():
    backlog = Backlog()
    for number in (2, 5, 7, 3, 1, 6):
        backlog.members.add(number)
        backlog.wait(number)
    backlog.leave(5)
    backlog.leave(5)
    assert [backlog.take() for _ in range(6)] == [1, 2, 3, 6, 7, None]


def test_where_none_waits_any_more_pauses_are_forgotten():
    backlog = backlog_of(waiting=1)
    for _ in range(4):
        try_in_vain(backlog)
    backlog.leave(1)
    backlog.members.add(2)
    backlog.refused(2, HINT, NOW)
    assert pause_is(backlog, 1)


# ---- the calls


class Full:
    """Has so many places for calls of e.*; each of go.0 lets the one that has had its place longest be answered."""

    def __init__(self, hint=1000.0):
        self.places, self.hint_ms, self.came, self.held = 1, int(hint * 1000), [], []

    def __call__(self, request, frames):
        if request.uid == "go.0":
            (number, *reply) = self.held.pop(0)
            reply[0].request_id = number
            return reply[0].SerializeToString(), reply[1]
        self.came.append(request.request_id)
        self.held = [one for one in self.held if one[0] != request.request_id]
        if len(self.held) >= self.places:
            return messages.server.ReplyHeader(version=1, status=8, message="full", retry_after_ms=self.hint_ms), []
        self.held.append((request.request_id, *echo(request, frames)))
        return None


class Asker:
    def __init__(self, stand_in, **options):
        self.full = Full(**options)
        self.client = expertd.Client(stand_in(self.full).endpoint, timeout=PATIENCE, retry_for=PATIENCE)
        self.going = []

    def ask(self, uid="e.0", **options):
        return self.client.start_forward(uid, [X], **options)

    def go(self):
        self.going.append(self.ask("go.0"))

    def let(self, call):
        self.go()
        assert call.result().status == 0

    def wait(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.001)

    def second_behind(self):
        """The first has the only place, and the second was refused."""
        calls = [self.ask(), self.ask()]
        self.wait(lambda: calls[1].refusal)
        return calls


@pytest.fixture
def asker(stand_in):
    made = Asker(stand_in)
    yield made
    for call in made.going:
        call.cancel()


def test_each_answer_lets_one_go_in_the_order_in_which_they_were_made(asker):
    calls = asker.second_behind() + [asker.ask(), asker.ask()]
    for call in calls:
        asker.let(call)
    ids = [call.request_id for call in calls]
    assert asker.full.came == [ids[0], ids[1], *ids[1:]]  # no other was refused
    assert not transport().connection(asker.client.endpoint)._backlogs.keys() - {("go.0", False)}


def test_nobody_waits_behind_those_of_other_experts_or_directions(asker):
    first, second = asker.second_behind()
    asker.full.places = 3
    others = [asker.ask("e.1"), asker.client.start_backward("e.0", [X], [X])]
    asker.let(first)
    for call in others:
        asker.let(call)
    asker.let(second)


def test_a_call_that_stands_behind_others_ends_with_their_refusal_when_its_patience_does(asker):
    first, second = asker.second_behind()
    with pytest.raises(expertd.ResourceExhausted, match="waits behind") as caught:
        asker.ask(retry_for=0.1).result()
    assert caught.value.not_applied
    with pytest.raises(expertd.ResourceExhausted, match="waits behind"):
        asker.ask(timeout=0.1).result()
    assert len(asker.full.came) == 2
    asker.let(first)
    asker.let(second)


def test_who_is_refused_where_nobody_is_before_it_does_not_wait_for_longer_than_its_patience(asker):
    asker.full.places = 0
    with pytest.raises(expertd.ResourceExhausted, match="full"):  # at once: the pause would be longer
        asker.ask(retry_for=100.0).result()
    assert len(asker.full.came) == 1


def test_who_has_no_time_to_wait_is_sent_where_nobody_is_before_it(stand_in):
    asker = Asker(stand_in, hint=PATIENCE / 10)
    asker.full.places = 0
    first = asker.ask()
    asker.wait(lambda: first.refusal)
    with pytest.raises(expertd.ResourceExhausted, match="full"):
        asker.ask(retry_for=1.0).result()
    assert len(asker.full.came) == 2
    first.cancel()


def test_who_has_another_server_to_ask_does_not_wait(asker):
    first, second = asker.second_behind()
    third = asker.ask(retry_for=0)
    with pytest.raises(expertd.ResourceExhausted, match="full"):
        third.result()
    assert not third.refusal  # it never waited
    asker.let(first)
    asker.let(second)


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_who_waits_is_tried_when_one_ends_without_an_answer(asker, how):
    first = asker.ask(timeout=PATIENCE if how == "cancelled" else 1.0)
    second = asker.ask()
    asker.wait(lambda: second.refusal or first.done())
    asker.full.places = 2
    if how == "cancelled":
        first.cancel()
    asker.wait(lambda: len(asker.full.came) == 3)
    asker.go()  # the first one's, which comes too late
    asker.let(second)


def test_what_is_given_up_keeps_no_place_in_the_row(asker):
    first, second = asker.second_behind()
    third, fourth = asker.ask(), asker.ask()
    third.cancel()
    second.cancel()
    asker.let(first)
    asker.let(fourth)
    assert third.request_id not in asker.full.came


def test_after_the_hint_it_is_tried_whether_there_are_more_places_now(stand_in):
    asker = Asker(stand_in, hint=0.01)
    first, second = asker.ask(), asker.ask()
    asker.wait(lambda: len(asker.full.came) > 4)
    asker.full.places = 2
    asker.wait(lambda: len(asker.full.held) == 2)
    asker.let(first)
    asker.let(second)


@pytest.mark.parametrize("how", ["as it was", "half let go"])
def test_after_a_loss_who_waits_is_sent_as_well(asker, how):
    first, second = asker.second_behind()
    connection = transport().connection(asker.client.endpoint)
    asker.full.places = 2
    with connection.lock:
        if how == "half let go":  # as an interrupt may leave it
            second.refusal = ""
            connection._backlogs[second.expert].take()
        connection._reset()
    asker.wait(lambda: len(asker.full.came) == 4)
    asker.let(first)
    asker.let(second)


def test_a_message_for_many_experts_stands_behind_nobody():
    client = expertd.Client("tcp://127.0.0.1:1")
    assert client.prepare_parts([("e.0", 2, 1)], [X], backward=False).expert is None
    assert client.prepare_one("e.0", [X], backward=False, requires_grad=None, timeout=1, retry_for=0).expert == ("e.0", False)
