"""hivemind.dht.node."""
from __future__ import annotations

from typing import Any

from .._elsewhere import done_elsewhere

__all__ = ["DHTNode"]


class DHTNode:
    @classmethod
    async def create(cls, *_: Any, **__: Any) -> "DHTNode":
        raise done_elsewhere("running a DHT node in this process", "DHT(start=True) starts an expertd-dht beside it")
