"""hivemind's import paths for the parts of it that expertd does: change `import hivemind` to
`import expertd.hivemind as hivemind`. docs/from-hivemind.md says what differs."""
from . import dht, moe, p2p, utils
from .dht import DHT
from .moe import (ExpertInfo, ModuleBackend, RemoteExpert, RemoteMixtureOfExperts, RemoteSwitchMixtureOfExperts, Server,
                  background_server, declare_experts, get_experts, register_expert_class)
from .p2p import P2PHandlerError, PeerID, PeerInfo
from .utils import MPFuture, get_dht_time, get_logger

__all__ = [
    "DHT", "ExpertInfo", "MPFuture", "ModuleBackend", "P2PHandlerError", "PeerID", "PeerInfo", "RemoteExpert",
    "RemoteMixtureOfExperts", "RemoteSwitchMixtureOfExperts", "Server", "background_server", "declare_experts", "dht",
    "get_dht_time", "get_experts", "get_logger", "moe", "p2p", "register_expert_class", "utils",
]
