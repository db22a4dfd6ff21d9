"""When the calls of one expert go on that a full server has refused, and those made after them, which stand behind.

A server refuses a client that has its share of the pool, or more: so an answer says that there is a place, and one call goes
for each that is served. As there may be more places by now, some are tried from time to time: at first as many as are with
the server, or all where none is; each try of which some were refused makes the next one later and half as large. After one
that went well the next is much sooner and larger, and two go for each that is served, until one is refused: a server that has
been full for long is soon made use of again. (client/comeback.h is the same in C.)"""
from __future__ import annotations

import bisect
import random
from typing import List, Optional, Set

__all__ = ["Backlog"]

LONGEST_PAUSE, DOUBLINGS = 1.0, 10  # seconds, unless the server asks for more
# With others at the server mostly an answer comes first; a longer pause would leave places free when there are more.
FAILURES_MOST, FAILURES_BESIDE_OTHERS = 10, 4


def backoff(hint: float, refusals: int) -> float:
    """Seconds: never less than the server's hint; twice as long after each further refusal, and up to as much again, so that
    clients that were refused together do not come back together."""
    least = min(hint * (1 << min(refusals, DOUBLINGS)), max(hint, LONGEST_PAUSE))
    return least * (1 + random.random())


class Backlog:
    """The calls of one expert and direction on one connection, by request id: `members` are all that have not ended, of which
    those that wait are told by take(). `due`: when some are to be tried, if any wait. Under the connection's lock."""
    __slots__ = ("members", "due", "hint", "_waiting", "_failures", "_tried", "_older")

    def __init__(self) -> None:
        self.members: Set[int] = set()
        self._waiting: List[int] = []  # in the order in which they were made
        self.due = self.hint = 0.0
        self._failures = 0  # tries that were refused; halved by one that was not
        self._tried = False  # and none was refused since
        self._older = 0  # of those with the server, were there before the try, of which their answers do not tell

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def flying(self) -> int:
        """With the server, or on their way there."""
        return len(self.members) - len(self._waiting)

    def refused(self, request_id: int, hint: float, now: float) -> None:
        """A member, which waits from now on."""
        others = self.flying() - 1
        self.hint = hint
        if self._tried or not self._waiting:  # else with others, of which the first has set the time
            if self._tried:
                self._failures = self._counted(others) + 1
            self._tried = False
            self._set_due(others, now)
        self.wait(request_id)

    def wait(self, request_id: int) -> None:
        """A member stands where it belongs among those that wait."""
        bisect.insort(self._waiting, request_id)

    def tried(self, now: float) -> int:
        """At `due`: so many of those that wait go, at least one. The next time is set."""
        flying = self.flying()
        if self._tried:
            self._failures = self._counted(flying) // 2
        self._tried, self._older = True, flying
        self._set_due(flying, now)
        return max(1, min(flying or len(self), len(self)) >> self._counted(flying))

    def answered(self) -> int:
        """One was served: so many of those that wait go, if there are as many."""
        if self._tried and self._older > 0:
            self._older -= 1
        elif self._tried:
            return 2
        return 1

    def stir(self) -> None:
        """One has left the server without an answer, of which nothing else will tell."""
        self.due = 0.0

    def take(self) -> Optional[int]:
        """The first one that waits: it goes."""
        return self._waiting.pop(0) if self._waiting else None

    def leave(self, request_id: int) -> None:
        """It has ended. Where none waits, what was known of pauses is forgotten."""
        self.members.discard(request_id)
        at = bisect.bisect_left(self._waiting, request_id)
        if self._waiting[at:at + 1] == [request_id]:
            del self._waiting[at]
        if not self._waiting:
            self._failures, self._tried = 0, False

    def _counted(self, flying: int) -> int:
        return min(self._failures, FAILURES_BESIDE_OTHERS if flying else FAILURES_MOST)

    def _set_due(self, flying: int, now: float) -> None:
        self.due = now + backoff(self.hint, self._counted(flying))
