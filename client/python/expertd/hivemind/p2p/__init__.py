"""hivemind.p2p."""
from ...server import PeerInfo
from .p2p_daemon_bindings.control import P2PHandlerError

# A server is known by the endpoint of its frontend.
PeerID = str

__all__ = ["P2PHandlerError", "PeerID", "PeerInfo"]
