"""Finding experts by their uids: questions to an expertd-dht (proto/PROTOCOL-dht.md)."""
from __future__ import annotations

import math
import os
import random
import time
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import torch

from . import keys
from . import messages
from .call import Call
from .errors import Internal, InvalidArgument, Unavailable
from .group import Group, free_port
from .transport import DHT as DHT_KIND
from .transport import transport

__all__ = ["DHT", "NodeStatus", "Found"]

_RESOLVE, _PREFIX, _BEAM_SEARCH, _STATUS, _DRAW = (
    messages.dht.value("Method", name) for name in ("RESOLVE", "PREFIX", "BEAM_SEARCH", "STATUS", "DRAW"))
MOST_UIDS, MOST_PREFIXES = 65536, 4096
MOST_CACHED = 65536
_SCHEMES = ("tcp://", "ipc://", "inproc://")


@dataclass(frozen=True)
class NodeStatus:
    """An expertd-dht, by its own account. frontend: the endpoint that it publishes; "": none."""
    server_id: str
    node_id: str
    port: int  # UDP
    network_id: int
    software: str
    frontend: str
    counters: Dict[str, float]


@dataclass(frozen=True)
class Found:
    """An expert that a beam search has found: its score, its uid, and the endpoints of the servers that host it."""
    score: float
    uid: str
    endpoints: Tuple[str, ...]


def _bootstrap_address(peer: str) -> str:
    """host:port of a peer; of a multiaddress (/ip4/10.0.0.7/udp/4222) as well."""
    if peer.startswith("/"):
        parts = peer.split("/")
        if len(parts) >= 5 and parts[1] in ("ip4", "ip6", "dns", "dns4", "dns6") and parts[3] in ("udp", "tcp"):
            return f"[{parts[2]}]:{parts[4]}" if parts[1] == "ip6" else f"{parts[2]}:{parts[4]}"
    elif ":" in peer:
        return peer
    raise InvalidArgument(f"{peer!r} is no peer: expected tcp://host:port of an expertd-dht, or host:port of a DHT node")


class DHT:
    """Look-ups by an expertd-dht.

        DHT("tcp://10.0.0.7:31331")              asks that one
        DHT(["10.0.0.7:4222"], start=True)       starts one in the background, which joins by that node
        DHT(start=True)                          starts one, the first of a new network

    `timeout`: seconds for one look-up. `cache`: for so many seconds a uid's servers are believed; a failure ends it
    early. Any thread may use it; a node in the background ends with this process, or with shutdown()."""

    def __init__(self, initial_peers: Union[str, Iterable[str], None] = None, *, start: bool = False, timeout: float = 5.0,
                 cache: float = 10.0, listen: Optional[str] = None, host: str = "127.0.0.1", port: int = 0,
                 network_id: int = 0, identity_file: Optional[str] = None, bin_dir: Optional[str] = None):
        peers = [initial_peers] if isinstance(initial_peers, str) else [str(peer) for peer in initial_peers or ()]
        endpoints = [peer for peer in peers if peer.startswith(_SCHEMES)]
        self._bootstrap = [_bootstrap_address(peer) for peer in peers if not peer.startswith(_SCHEMES)]
        if endpoints and self._bootstrap:
            raise InvalidArgument("either the endpoint of an expertd-dht (tcp://host:port), or nodes to join by (host:port)")
        if not endpoints and not start and peers:
            raise InvalidArgument(f"{peers[0]!r} is a node to join by: start=True starts an expertd-dht that does")
        self.timeout, self._cache_for, self._host = timeout, cache, host
        self._cached: Dict[str, Tuple[float, Tuple[str, ...]]] = {}
        self._group: Optional[Group] = None
        self._options: Dict[str, Any] = {"listen": listen, "port": port, "network_id": network_id,
                                         "identity_file": identity_file, "bin_dir": bin_dir}
        self._endpoints = endpoints
        if endpoints:
            for endpoint in endpoints:
                transport().connection(endpoint, DHT_KIND)
        elif start:
            self.run_in_background()

    def __repr__(self) -> str:
        if not self._endpoints:
            return "DHT(not started)"
        return f"DHT({', '.join(self._endpoints)}{', in the background' if self._group else ''})"

    # ---- a node in the background

    def run_in_background(self, await_ready: bool = True) -> None:
        """Starts an expertd-dht that publishes nothing and joins by the initial peers, if there is none yet."""
        if self._endpoints:
            return
        listen = self._options["listen"] or f"tcp://{self._host}:{free_port(self._host)}"
        flags = {"dht-frontend": "none", "dht-listen": listen, "dht-port": self._options["port"],
                 "dht-network-id": self._options["network_id"], "dht-identity-file": self._options["identity_file"]}
        group = Group(bin_dir=self._options["bin_dir"])
        # A name and a folder of its own: there may be others on the machine.
        name = f"python-dht-{os.getpid()}-{random.getrandbits(32):08x}"
        flags.update({"server-name": name, "server-run-dir": os.path.join(group.folder, "run")})
        group.start(["expertd-dht"], [f"--{name}={value}" for name, value in flags.items() if value is not None]
                    + [f"--dht-bootstrap={address}" for address in self._bootstrap],
                    remove=[f"/dev/shm/expertd.{name}.*"])
        self._group, self._endpoints = group, [listen]
        if await_ready:
            try:
                group.wait_for(lambda: self._answers(), 30.0, "expertd-dht answers")
            except BaseException:
                self.shutdown()
                raise

    start = run_in_background

    def _answers(self) -> bool:
        try:
            self.status(timeout=1.0)
            return True
        except (Unavailable, TimeoutError):
            return False

    def is_alive(self) -> bool:
        """Whether the node in the background runs; of one elsewhere, whether it answers."""
        if self._group is not None:
            return self._group.is_alive()
        return bool(self._endpoints) and self._answers()

    def shutdown(self) -> None:
        """Ends the node in the background. One elsewhere is left alone."""
        if self._group is not None:
            self._group.stop()
            self._group, self._endpoints = None, []

    def join(self, timeout: Optional[float] = None) -> None:
        """For programs that join the thread or process that a DHT is elsewhere."""

    @property
    def endpoint(self) -> str:
        """Where it is asked."""
        if not self._endpoints:
            raise Unavailable("this DHT was not started: start=True, or run_in_background()")
        return self._endpoints[0]

    @property
    def peer_id(self) -> str:
        """The node's server id, in hexadecimal."""
        return self.status().server_id

    def get_visible_maddrs(self, latest: bool = False) -> List[str]:
        """What another DHT takes as initial_peers, to ask the same node."""
        return [self.endpoint]

    def bootstrap_addresses(self) -> List[str]:
        """host:port, by which nodes and servers on machines that reach this one join its network."""
        host = self.endpoint.split("://")[-1].rsplit(":", 1)[0]
        return [f"{host}:{self.status().port}"]

    # ---- look-ups

    def resolve(self, uids: Sequence[str], *, timeout: Optional[float] = None, fresh: bool = False) -> List[Tuple[str, ...]]:
        """Of each uid, the endpoints of the live servers that host it, in no particular order; empty: nobody does."""
        now = time.monotonic()
        found = {} if fresh else {uid: endpoints for uid in uids for when, endpoints in [self._cached.get(uid, (0.0, ()))]
                                  if now < when}
        missing = [uid for uid in dict.fromkeys(uids) if uid not in found]
        for begin in range(0, len(missing), MOST_UIDS):
            asked = missing[begin:begin + MOST_UIDS]
            reply = self._ask(_RESOLVE, timeout, uids=asked)
            if [resolved.uid for resolved in reply.resolved] != asked:
                raise Internal("the answer is not to the question", endpoint=self.endpoint)
            for resolved in reply.resolved:
                found[resolved.uid] = self._remember(resolved.uid, _endpoints(resolved))
        return [found[uid] for uid in uids]

    def forget(self, uid: str) -> None:
        """The next resolve() of it asks."""
        self._cached.pop(uid, None)

    def coordinates(self, prefixes: Sequence[str], *, timeout: Optional[float] = None) -> List[Tuple[List[range], List[range]]]:
        """Of each prefix ("ffn.4."), the coordinates that complete the uid of a live expert, and those that more
        coordinates follow, as ranges that ascend."""
        found: List[Tuple[List[range], List[range]]] = []
        for begin in range(0, len(prefixes), MOST_PREFIXES):
            asked = list(prefixes[begin:begin + MOST_PREFIXES])
            reply = self._ask(_PREFIX, timeout, prefixes=asked)
            if [content.prefix for content in reply.prefixes] != asked:
                raise Internal("the answer is not to the question", endpoint=self.endpoint)
            found += [([range(r.first, r.first + r.count) for r in content.experts],
                       [range(r.first, r.first + r.count) for r in content.branches]) for content in reply.prefixes]
        return found

    def beam_search(self, prefix: str, grid_size: Sequence[int], scores: torch.Tensor, beam_size: int, *,
                    timeout: Optional[float] = None) -> List[List[Found]]:
        """scores: [rows, sum(grid_size)]. For each row the beam_size live experts with the greatest sums of their
        coordinates' scores, the best first."""
        flat = scores.detach().to("cpu", torch.float32)
        if flat.dim() != 2 or flat.shape[1] != sum(grid_size):
            raise InvalidArgument(f"scores of shape {list(flat.shape)} were given; expected [rows, {sum(grid_size)}]")
        query = messages.dht.BeamQuery(prefix=prefix, grid_size=list(grid_size), scores=flat.flatten().tolist(),
                                       beam_size=beam_size)
        beam = self._ask(_BEAM_SEARCH, timeout, beam=query).beam
        if len(beam.rows) != len(flat) or any(len(row.experts) != len(row.scores) or len(row.experts) > beam_size
                                              or any(i >= len(beam.experts) for i in row.experts) for row in beam.rows):
            raise Internal("the answer is not to the question", endpoint=self.endpoint)
        experts = [(resolved.uid, self._remember(resolved.uid, _endpoints(resolved))) for resolved in beam.experts]
        return [[Found(score, *experts[i]) for i, score in zip(row.experts, row.scores)] for row in beam.rows]

    def draw(self, pattern: str, count: int, *, timeout: Optional[float] = None) -> List[str]:
        """Distinct uids of the pattern ("ffn.[0:32].[0:256]") that no live server hosts, drawn at random; fewer than
        count if there are not so many."""
        return list(self._ask(_DRAW, timeout, draw=messages.dht.DrawQuery(pattern=pattern, count=count)).draw.uids)

    def status(self, *, timeout: Optional[float] = None) -> NodeStatus:
        node = self._ask(_STATUS, timeout).node
        return NodeStatus(node.server_id, node.node_id, node.port, node.network_id, node.software, node.frontend,
                          {counter.name: counter.value for counter in node.counters})

    def _remember(self, uid: str, endpoints: Tuple[str, ...]) -> Tuple[str, ...]:
        if len(self._cached) >= MOST_CACHED:
            self._cached.clear()
        # That nobody hosts it may change any moment, and is asked for anew.
        if endpoints:
            self._cached[uid] = time.monotonic() + self._cache_for, endpoints
        else:
            self._cached.pop(uid, None)
        return endpoints

    def _ask(self, method: int, timeout: Optional[float], **fields: Any) -> Any:
        seconds = self.timeout if timeout is None else timeout
        if not 0 < seconds < math.inf:
            raise InvalidArgument(f"a timeout of {seconds} s was given; it has to be above 0")
        header = messages.dht.Request(version=1, method=method, **fields).SerializeToString()
        error: Optional[Exception] = None
        for endpoint in [self.endpoint, *self._endpoints[1:]]:
            last = endpoint == self._endpoints[-1]
            # The node answers what it knows at its deadline, for which there has to be time.
            call = Call(header, (), uid="", backward=False, timeout=seconds, retry_for=seconds if last else 0.0)
            transport().connection(endpoint, DHT_KIND).start(call)
            try:
                return call.result()
            except Unavailable as unavailable:
                error = unavailable
        assert error is not None
        raise error


def _endpoints(resolved: Any) -> Tuple[str, ...]:
    for replica in resolved.replicas:
        if replica.curve_key:
            keys.learn(replica.endpoint, replica.curve_key)
    return tuple(dict.fromkeys(replica.endpoint for replica in resolved.replicas))
