"""hivemind.moe.server: the programs of expertd in the background."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

from ....codecs import codec_name
from ....errors import InvalidArgument
from ....server import PeerInfo, declare_experts, get_experts, schedule_name_to_scheduler
from ....server import Server as _Server
from ..._elsewhere import drop
from .layers import add_custom_models_from_file, name_to_block, register_expert_class
from .module_backend import ModuleBackend, described

__all__ = ["ModuleBackend", "Server", "background_server", "declare_experts", "get_experts", "name_to_block",
           "register_expert_class", "schedule_name_to_scheduler"]

_WITHOUT_MEANING = ("host_maddrs", "announce_maddrs", "use_relay", "use_auto_relay", "identity_path", "use_ipfs", "daemon",
                    "num_workers", "record_validators", "client_mode", "shutdown_timeout")
_OTHER_NAMES = {"optim_factory": "optim_cls", "num_total_steps": "num_training_steps"}


class _Ready:
    """Whether every expert answers: as a bool, and as hivemind's event."""

    def __init__(self, server: _Server):
        self._server = server

    def __bool__(self) -> bool:
        return _Server.ready.fget(self._server)  # type: ignore[attr-defined,no-any-return]

    def __repr__(self) -> str:
        return repr(bool(self))

    is_set = __bool__

    def wait(self, timeout: Optional[float] = None) -> bool:
        try:
            self._server.await_ready(timeout)
            return True
        except TimeoutError:
            return False


class Server(_Server):
    """expertd.Server, with what hivemind's takes besides: Server.create(...), Server(dht, module_backends), start(), and
    `ready` as something to wait for."""

    @property
    def ready(self) -> Any:
        return _Ready(self)

    def start(self) -> None:
        """Starts the programs; ready.wait() waits for them."""
        self.run_in_background(await_ready=False)

    def __init__(self, dht: Any, module_backends: Optional[Dict[str, ModuleBackend]] = None,
                 num_connection_handlers: Optional[int] = None, update_period: float = 30.0, expiration: Optional[float] = None,
                 start: bool = False, checkpoint_dir: Optional[str] = None, **options: Any):
        if isinstance(dht, dict):  # a configuration: what create() makes
            super().__init__(dht, start=start, **options)
            return
        if not module_backends:
            raise InvalidArgument("Server(dht, module_backends) needs the backends by uid")
        drop(options, (*_WITHOUT_MEANING, "stats_report_interval"), "Server")
        backends = dict(module_backends)
        blocks, used = described(backends)
        common = {"initial_peers": [] if dht is None else dht.get_visible_maddrs(), "update_period": update_period,
                  "expiration": expiration, "checkpoint_dir": checkpoint_dir, "start": False, **options}
        entries = []
        for uid, backend in backends.items():
            one = _Server.create(expert_uids=[uid], expert_cls=used[uid], hidden_dim=backend.exported.hidden_dim,
                                 optim_cls=backend.optim_cls, min_batch_size=backend.min_batch_size,
                                 max_batch_size=backend.max_batch_size, **common)
            entries += one.config["experts"]
        config = {**one.config, "experts": entries, "blocks": list(blocks.values())}
        super().__init__(config, uids=list(backends), start=start,
                         weights=lambda uid: backends[uid].exported.weights)

    @classmethod
    def create(cls, *args: Any, **options: Any) -> "_Server":
        custom = options.pop("custom_module_path", None)
        if custom is not None:
            add_custom_models_from_file(custom)
        compression = options.pop("compression", None)
        if compression is not None:
            options["expert_options"] = {"compression": codec_name(compression), **(options.get("expert_options") or {})}
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
