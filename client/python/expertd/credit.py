"""What the peer of a connection may send before its message ends. ZeroMQ bounds a frame, but hands on no message before its
last frame, and keeps the others, however many: here is counted what has come since a message was taken."""
from __future__ import annotations

import os

__all__ = ["use"]

LEAST, MOST = 64 << 20, 2 << 30
BYTES_OF_A_BYTE = 32  # of an empty frame's two bytes ZeroMQ makes 64

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
    return _used or (int(given) if given.isdigit() else 0) or min(MOST, max(LEAST, memory_limit() // 4))


def memory_limit() -> int:
    """Bytes that the machine has, or this process's control group (v2) and those above it allow."""
    limit = os.sysconf("SC_PHYS_PAGES") * _PAGE
    try:
        with open("/proc/self/cgroup") as file:
            group = next((line.rstrip()[3:] for line in file if line.startswith("0::")), "")
        while group:
            try:
                with open(f"/sys/fs/cgroup{group}/memory.max") as file:
                    limit = min(limit, int(file.read()))
            except (OSError, ValueError):  # the root has none; "max"
                pass
            group = group.rpartition("/")[0]
    except OSError:
        pass
    return limit


def memory_own() -> int:
    """Resident bytes, without what is shared."""
    with open("/proc/self/statm") as file:
        _, resident, shared = file.read().split()[:3]
    return (int(resident) - int(shared)) * _PAGE


class Credit:
    """One connection's. `taken`: a message, since the last look."""
    __slots__ = ("most_bytes", "taken", "_whole", "_own")

    def __init__(self, most_bytes: int):
        self.most_bytes = most_bytes
        self.begin()

    def begin(self) -> None:
        """On a new connection."""
        self.taken, self._whole, self._own = False, 0, 0

    def is_used_up(self, received: int) -> bool:
        """So many bytes have come. Whether that is more than may come before a message ends, if none waits to be taken.

        What came between a message's end and this look is not counted. How many frames the bytes are is not seen from here,
        so that beside them the process's memory counts, where they can have made so much of it."""
        if self.taken or received < self._whole:
            self.taken, self._whole = False, received
        begun = received - self._whole
        if begun <= self.most_bytes // BYTES_OF_A_BYTE:
            self._own = 0
            return False
        own = memory_own()
        self._own = self._own or own
        return begun > self.most_bytes or own - self._own > self.most_bytes
