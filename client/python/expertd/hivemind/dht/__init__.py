"""hivemind.dht: an expertd-dht."""
from __future__ import annotations

from typing import Any, Iterable, Union

from ... import dht as _dht
from .._elsewhere import done_elsewhere, drop

__all__ = ["DHT"]

_WITHOUT_MEANING = ("p2p", "daemon", "num_workers", "record_validators", "shutdown_timeout", "await_ready", "host_maddrs",
                    "announce_maddrs", "use_ipfs", "use_relay", "use_auto_relay", "client_mode", "identity_path", "maxsize",
                    "parallel_rpc", "cache_locally", "cache_nearest", "cache_refresh_before_expiry", "wait_timeout")


class DHT(_dht.DHT):
    """hivemind's arguments. initial_peers are what other DHTs' get_visible_maddrs() and servers' PeerInfos say, or host:port of
    DHT nodes, by which a node in the background joins."""

    def __init__(self, initial_peers: Union[str, Iterable[str], None] = None, *, start: bool = False, **options: Any):
        drop(options, _WITHOUT_MEANING, "DHT")
        super().__init__(initial_peers, start=start, **options)

    def store(self, *_: Any, **__: Any) -> Any:
        raise done_elsewhere("storing values of one's own in the DHT", "an expertd-dht publishes what its server hosts")

    def get(self, *_: Any, **__: Any) -> Any:
        raise done_elsewhere("reading values by their keys", "ask for experts: resolve(), coordinates(), beam_search()")
