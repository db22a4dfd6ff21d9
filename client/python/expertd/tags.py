"""What a request carries for people and tools beside its tensors: metadata and a trace's context."""
from __future__ import annotations

import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Iterator, Optional, Tuple, Union

from .errors import InvalidArgument

__all__ = ["tagged"]

METADATA_MAX = 1024  # bytes
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

Tags = Tuple[bytes, str]
NONE: Tags = (b"", "")
_current: ContextVar[Tags] = ContextVar("expertd_tags", default=NONE)


@contextmanager
def tagged(metadata: Union[bytes, str, None] = None, traceparent: Optional[str] = None) -> Iterator[None]:
    """Within it, requests of this thread (or asyncio task) carry `metadata`, at most 1,024 bytes, of which the server's log has the
    beginning at debug and which comes back in the reply (`Call.metadata`); and `traceparent`, a W3C Trace Context, with which the log says
    how long the request took. A backward carries what it is called in, or else what its forward was. None: as outside of it."""
    outer = _current.get()
    if isinstance(metadata, str):
        metadata = metadata.encode()
    if metadata is not None and len(metadata) > METADATA_MAX:
        raise InvalidArgument(f"metadata of {len(metadata)} bytes was given; a request carries at most {METADATA_MAX}")
    if traceparent and not _TRACEPARENT.fullmatch(traceparent):
        raise InvalidArgument(f"{traceparent!r} is no traceparent, such as 00-<32 hex digits>-<16 hex digits>-01")
    token = _current.set((outer[0] if metadata is None else metadata, outer[1] if traceparent is None else traceparent))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Tags:
    return _current.get()


@contextmanager
def under(tags: Tags) -> Iterator[None]:
    """Those, in whatever thread this is."""
    token = _current.set(tags)
    try:
        yield
    finally:
        _current.reset(token)
