"""hivemind.moe.server: the programs of expertd in the background."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator

from ....server import PeerInfo, declare_experts, get_experts, schedule_name_to_scheduler
from ....server import Server as _Server
from ..._elsewhere import done_elsewhere, drop
from .layers import name_to_block, register_expert_class

__all__ = ["ModuleBackend", "Server", "background_server", "declare_experts", "get_experts", "name_to_block",
           "register_expert_class", "schedule_name_to_scheduler"]

_WITHOUT_MEANING = ("host_maddrs", "announce_maddrs", "use_relay", "use_auto_relay", "identity_path", "use_ipfs", "daemon",
                    "num_workers", "record_validators", "client_mode", "shutdown_timeout")
_OTHER_NAMES = {"optim_factory": "optim_cls", "num_total_steps": "num_training_steps"}


class Server(_Server):
    """expertd.Server, with what hivemind's takes besides."""

    @classmethod
    def create(cls, *args: Any, **options: Any) -> "_Server":
        if options.pop("custom_module_path", None) is not None:
            raise done_elsewhere("running a Python module on the server",
                                 "declare the block in the server's configuration, or write an own expert (README.md)")
        if options.pop("compression", None) not in (None, 0):
            raise done_elsewhere("choosing a codec for a server", "codecs are chosen by each client")
        for theirs, ours in _OTHER_NAMES.items():
            if theirs in options:
                options[ours] = options.pop(theirs)
        drop(options, _WITHOUT_MEANING, "Server.create")
        return super().create(*args, **options)


@contextmanager
def background_server(*args: Any, shutdown_timeout: Any = None, **options: Any) -> Iterator[PeerInfo]:
    """Server.create(...) for as long as the with-block runs; yields its PeerInfo."""
    options["start"] = True
    server = Server.create(*args, **options)
    try:
        yield server.peer_info
    finally:
        server.shutdown()


class ModuleBackend:
    """hivemind's holder of a module on the server."""

    def __init__(self, *_: Any, **__: Any):
        raise done_elsewhere("holding a torch module on the server", "the server computes its own blocks; Server.create(expert_cls=...)")
