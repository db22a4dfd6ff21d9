"""hivemind.moe."""
from . import client, expert_uid, server
from .client import RemoteExpert, RemoteMixtureOfExperts, RemoteSwitchMixtureOfExperts
from .expert_uid import ExpertInfo
from .server import (ModuleBackend, Server, background_server, declare_experts, get_experts, register_expert_class)

__all__ = [
    "ExpertInfo", "ModuleBackend", "RemoteExpert", "RemoteMixtureOfExperts", "RemoteSwitchMixtureOfExperts", "Server",
    "background_server", "client", "declare_experts", "expert_uid", "get_experts", "register_expert_class", "server",
]
