"""What the headers of replies say. A server's answers to an expert's calls differ by their request id alone, which stands
in front: what is behind it is read once, and remembered. Behind a large answer nothing is in the caches, where it costs
more to read a header, and the shapes in it, than to move the bytes."""
from __future__ import annotations

from typing import Any, Dict, Optional, Sequence, Tuple

from .tensors import Described, describe

__all__ = ["Reply", "Replies"]

REMEMBERED = 256
REMEMBERED_BYTES = 256  # of a header; what is longer has texts or lists, which come once
_BEGIN = b"\x08\x01\x10"  # version 1, and how the field request_id begins


class Reply:
    """A reply's message, whose fields are this one's, too. Shared by the calls that got such a one: to be read only."""
    __slots__ = ("version", "status", "_message", "_described")

    def __init__(self, message: Any, version: int):
        self.version, self.status = version, message.status
        self._message = message
        self._described: Optional[Tuple[Described, ...]] = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def described(self) -> Sequence[Described]:
        """Its tensors; Internal for what cannot be."""
        if self._described is None:
            self._described = tuple([describe(i, tensor) for i, tensor in enumerate(self._message.tensors)])
        return self._described


class Replies:
    """Reads headers of `message_class`. One thread at a time."""

    def __init__(self, message_class: Any):
        self._read, self._known = message_class.FromString, {}  # type: Any, Dict[bytes, Reply]

    def read(self, header: bytes) -> Tuple[int, Reply]:
        """The request id, and the reply. Raises protobuf's DecodeError, which its versions have in different places."""
        end = _end_of_id(header)
        rest = header[end:]
        found = self._known.get(rest) if end else None
        if found is not None:
            return _number(header[len(_BEGIN):end]), found
        message = self._read(header)
        reply = Reply(message, message.version)
        if end and len(rest) <= REMEMBERED_BYTES and self._says_neither(rest) and \
                (message.version, message.request_id) == (1, _number(header[len(_BEGIN):end])):
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[rest] = reply
        return message.request_id, reply

    def _says_neither(self, rest: bytes) -> bool:
        """Whether there is no second version or id, of which the last one counts; one of 0 shows in the whole alone."""
        message = self._read(rest)
        return message.version == 0 and message.request_id == 0


def _end_of_id(header: bytes) -> int:
    """0: it does not begin with a version 1 and an id."""
    if header[:len(_BEGIN)] == _BEGIN:
        for end in range(len(_BEGIN), min(len(header), len(_BEGIN) + 9)):
            if header[end] < 0x80:
                return end + 1
    return 0


def _number(varint: bytes) -> int:
    number = 0
    for byte in reversed(varint):
        number = number << 7 | byte & 0x7F
    return number
