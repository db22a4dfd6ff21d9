"""What the peer of a connection may send before its message ends. ZeroMQ bounds a frame, but hands on no message before its
last frame, and keeps the others, however many: here is counted what has come since a message was taken."""
from __future__ import annotations

import math
import os
from typing import Iterator

__all__ = ["use"]

LEAST, MOST = 64 << 20, 2 << 30
BYTES_OF_A_BYTE = 32  # of an empty frame's two bytes ZeroMQ makes 64
PING_BYTES = 128  # more than a ping and an answer have

_PAGE = os.sysconf("SC_PAGE_SIZE")
_used = 0


def use(most_bytes: int) -> None:
    """How much may come on a connection that is made from now on. 0: what EXPERTD_MAX_MESSAGE in the environment says, or
    else a quarter of the memory, 2 GiB at most and 64 MiB at least."""
    global _used
    if most_bytes < 0:
        raise ValueError(f"{most_bytes} bytes of a message were asked for")
    _used = most_bytes


def most() -> int:
    given = os.environ.get("EXPERTD_MAX_MESSAGE", "")
    return _used or (int(given) if given.isdecimal() else 0) or min(MOST, max(LEAST, memory_limit() // 4))


def memory_limit() -> int:
    """Bytes that the machine has, or this process's control group and those above it allow."""
    limit = os.sysconf("SC_PHYS_PAGES") * _PAGE
    for path in _limits("/proc/self/cgroup"):
        try:
            with open(path) as file:
                limit = min(limit, int(file.read()))
        except (OSError, ValueError):  # the root has none; "max"
            pass
    return limit


def _limits(groups: str) -> Iterator[str]:
    """The files that may say so: of version 2, and of 1. In a container the groups above its own are not there."""
    try:
        with open(groups) as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        group = group.rstrip("/")
        if controllers and "memory" not in controllers.split(","):
            continue
        while True:
            yield f"/sys/fs/cgroup/memory{group}/memory.limit_in_bytes" if controllers else f"/sys/fs/cgroup{group}/memory.max"
            if not group:
                break
            group = group.rpartition("/")[0]


def memory_own() -> int:
    """Resident bytes, without what is shared. 0: it is not known."""
    try:
        with open("/proc/self/statm") as file:
            _, resident, shared = file.read().split()[:3]
        return (int(resident) - int(shared)) * _PAGE
    except (OSError, ValueError):  # no more descriptors; no /proc
        return 0


class Credit:
    """One connection's. `taken`: a message, since the last look. A heartbeat comes every `ping_s` seconds, and its answers."""
    __slots__ = ("most_bytes", "ping_s", "taken", "asked", "_whole", "_own", "_large", "_pinged", "_pings")

    def __init__(self, most_bytes: int, ping_s: float = math.inf):
        self.most_bytes, self.ping_s = most_bytes, ping_s
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """On a new connection."""
        self.taken = self.asked = False
        self._whole = self._own = self._large = self._pings = 0
        self._pinged = now

    def in_doubt(self) -> bool:
        """Whether so much was left out as heartbeats that it could be a large message, sent at their pace. The answer to a
        question tells: before a message's end nothing else can come. When one was sent `asked` is to be set: until a message
        comes nothing more is left out then."""
        return not self.asked and self._pings > self.most_bytes // BYTES_OF_A_BYTE

    def is_used_up(self, received: int, now: float) -> bool:
        """So many bytes have come. Whether that is more than may come before a message ends, if none waits to be taken.

        What came between a message's end and this look is not counted, nor are heartbeats, of which those of weeks would
        be a message. How many frames the bytes are is not seen from here, so that beside them the growth of the process's
        memory counts, as far as they can have made it."""
        if self.taken:
            self.asked, self._pings = False, 0
        if self.taken or received < self._whole:
            self.taken, self._whole = False, received
        pings = (now - self._pinged) // self.ping_s
        if pings > 0:
            self._pinged += pings * self.ping_s
        if pings > 0 and not self.asked:
            left_out = min(received - self._whole, int(pings) * PING_BYTES)
            self._whole += left_out
            self._pings += left_out
        begun = received - self._whole
        if begun <= self.most_bytes // BYTES_OF_A_BYTE:
            self._own = 0
            return False
        own = memory_own()
        if not self._own:
            self._own, self._large = own, begun
        grown = own - self._own if own else 0
        return begun > self.most_bytes or min(grown, BYTES_OF_A_BYTE * (begun - self._large)) > self.most_bytes
