"""hivemind.p2p.p2p_daemon_bindings.control."""
from ....errors import ExpertdError as P2PHandlerError

__all__ = ["P2PHandlerError"]
