"""hivemind.p2p."""
from __future__ import annotations

from typing import Any

from ...server import PeerInfo
from .p2p_daemon_bindings.control import P2PHandlerError

# A server is known by the endpoint of its frontend.
PeerID = str


class P2P:
    """What RemoteExpert(info, p2p) is given elsewhere. Here connections are the process's own, made when they are needed."""

    @classmethod
    async def create(cls, *_: Any, **__: Any) -> P2P:
        return cls()

    async def shutdown(self) -> None:
        """There is nothing to end."""


__all__ = ["P2P", "P2PHandlerError", "PeerID", "PeerInfo"]
