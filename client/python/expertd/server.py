"""Servers in the background of a Python program: a frontend, a runtime and an expertd-dht with a configuration of their
own, found in build/bin, on the PATH, or in bin_dir."""
from __future__ import annotations

import functools
import inspect
import json
import os
import random
import re
import time
import warnings
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Type, Union

import torch

from .client import Client
from .declaration import Exported
from .dht import DHT, _SCHEMES, _bootstrap_address
from .errors import ExpertdError, InvalidArgument, Unavailable, Unimplemented
from .group import Group, free_port
from .progress import Progress
from .registry import hosted
from .safetensors import save_tensors
from .uid import UID_DELIMITER, is_valid_uid

__all__ = ["Server", "PeerInfo", "background_server", "declare_experts", "get_experts", "schedule_name_to_scheduler"]

# Names of learning rate schedules, as `schedule` in the configuration has them.
schedule_name_to_scheduler: Dict[str, str] = {"none": "none", "linear": "linear", "cosine": "cosine"}

START_TIMEOUT = 300.0


class PeerInfo(NamedTuple):
    """A server: peer_id is its frontend's endpoint, addrs what a DHT takes as initial_peers to find its experts."""
    peer_id: str
    addrs: List[str]


def _optimizer(optimizer: Any) -> Dict[str, Any]:
    """The options of the configuration for "adam", "sgd", "none", None, a class of torch.optim, a functools.partial
    of one, or what makes one of parameters."""
    if optimizer is None or isinstance(optimizer, str):
        return {"optimizer": optimizer or "none", **({"learning_rate": 0.01} if optimizer == "sgd" else {})}
    arguments: Dict[str, Any] = {}
    while isinstance(optimizer, functools.partial):
        if optimizer.args:
            raise InvalidArgument("an optimizer's settings are given by name: functools.partial(torch.optim.Adam, lr=1e-3)")
        arguments = {**optimizer.keywords, **arguments}
        optimizer = optimizer.func
    names = {torch.optim.Adam: "adam", torch.optim.AdamW: "adamw", torch.optim.SGD: "sgd"}
    if optimizer not in names and callable(optimizer) and not isinstance(optimizer, type):
        made = optimizer([torch.nn.Parameter(torch.zeros(1))], **arguments)
        if type(made) in names and len(made.param_groups) == 1:
            optimizer = type(made)
            arguments = {key: value for key, value in made.param_groups[0].items() if key not in ("params", "initial_lr")}
    if optimizer not in names:
        raise InvalidArgument("the server has the optimizers adam, adamw and sgd; "
                              f"{getattr(optimizer, '__name__', optimizer)} was given")
    name = names[optimizer]
    options: Dict[str, Any] = {"optimizer": name, "learning_rate": float(arguments.pop("lr", 0.01 if name == "sgd" else 1e-3))}
    decay = float(arguments.pop("weight_decay", 1e-2 if name == "adamw" else 0.0))
    if decay:
        options["weight_decay"] = decay
    if name != "sgd":
        betas = arguments.pop("betas", (0.9, 0.999))
        options.update(beta1=float(betas[0]), beta2=float(betas[1]), epsilon=float(arguments.pop("eps", 1e-8)))
        if arguments.pop("amsgrad", False):
            options["amsgrad"] = True
    else:
        options["momentum"] = float(arguments.pop("momentum", 0.0))
    defaults = {parameter.name: parameter.default for parameter in inspect.signature(optimizer).parameters.values()}
    for key, value in arguments.items():
        if key not in defaults or value != defaults[key]:
            raise InvalidArgument(f"the server's {name} has no {key}={value}")
    return options


def _device(device: Union[None, str, Dict[str, Any]]) -> Dict[str, Any]:
    """An entry of `devices`; torch's names are translated."""
    if isinstance(device, dict):
        return {"name": "device0", **device}
    if device is None:
        return {"name": "device0"}
    kind, _, number = str(device).partition(":")
    if kind == "cpu":
        return {"name": "device0", "platform": "Portable Computing Language"}
    if kind == "cuda":
        return {"name": "device0", "platform": "NVIDIA", "device": number or "0"}
    return {"name": "device0", "device": str(device)}


def _sample(pattern: str, count: int) -> List[str]:
    """Distinct uids of a pattern such as ffn.[0:32].[0:256], at random; fewer if it has not so many."""
    choices: List[Union[str, range]] = []
    for part in pattern.split(UID_DELIMITER):
        found = re.fullmatch(r"\[(\d+):(\d+)\]", part)
        choices.append(range(int(found[1]), int(found[2])) if found else part)
    sizes = [len(choice) if isinstance(choice, range) else 1 for choice in choices]
    total = functools.reduce(lambda a, b: a * b, sizes, 1)
    uids = []
    for index in sorted(random.sample(range(total), min(count, total))):
        parts = []
        for choice, size in zip(reversed(choices), reversed(sizes)):
            parts.append(str(choice[index % size]) if isinstance(choice, range) else choice)
            index //= size
        uids.append(UID_DELIMITER.join(reversed(parts)))
    for uid in uids[:1]:
        if not is_valid_uid(uid):
            raise InvalidArgument(f"{pattern!r} is no pattern of uids, such as ffn.[0:32].[0:256]")
    return uids


def _in_checkpoints(checkpoint_dir: Optional[str]) -> List[str]:
    if checkpoint_dir is None or not os.path.isdir(checkpoint_dir):
        return []
    return sorted(name for name in os.listdir(checkpoint_dir) if is_valid_uid(name)
                  and any(file.endswith(".safetensors") for file in os.listdir(os.path.join(checkpoint_dir, name))))


class Server:
    """Hosts experts in the background. Server.create(...) makes one; shutdown() ends it, and so does the end of this
    process. `endpoint` is its frontend's, `dht` finds its experts and those of the network that it is in, `uids` are
    what it hosts."""

    def __init__(self, config: Dict[str, Any], *, uids: Sequence[str], with_dht: bool = True, bin_dir: Optional[str] = None,
                 start: bool = False, weights: Optional[Callable[[str], Dict[str, torch.Tensor]]] = None,
                 progress: Optional[bool] = None):
        """config: the sections of a configuration, as a file has them; weights(uid): the parameters that an expert begins
        with, written where `weights` of its entry then says. progress: whether bars are shown (Progress)."""
        self.config, self.uids, self._with_dht, self._bin_dir = config, list(uids), with_dht, bin_dir
        self._weights, self._progress = weights, progress
        self._group: Optional[Group] = None
        self._dht: Optional[DHT] = None
        if start:
            self.run_in_background()

    @classmethod
    def create(cls, num_experts: Optional[int] = None, expert_uids: Optional[Iterable[str]] = None,
               expert_pattern: Optional[str] = None, expert_cls: Union[str, Type[torch.nn.Module], Exported] = "ffn",
               hidden_dim: Optional[int] = None,
               optim_cls: Any = "adam", scheduler: str = "none", num_warmup_steps: Optional[int] = None,
               num_training_steps: Optional[int] = None, clip_grad_norm: Optional[float] = None,
               num_handlers: Optional[int] = None, min_batch_size: int = 1, max_batch_size: int = 4096,
               device: Union[None, str, Dict[str, Any]] = None, initial_peers: Iterable[str] = (),
               checkpoint_dir: Optional[str] = None, stats_report_interval: Optional[float] = None,
               update_period: float = 30.0, expiration: Optional[float] = None, *, start: bool, host: str = "127.0.0.1",
               port: Optional[int] = None, advertise: Optional[str] = None, with_dht: bool = True, network_id: int = 0,
               checkpoint_interval: Optional[float] = None, seed: Optional[int] = None,
               expert_options: Optional[Dict[str, Any]] = None, blocks: Sequence[Dict[str, Any]] = (),
               bin_dir: Optional[str] = None, progress: Optional[bool] = None, insecure: bool = False) -> "Server":
        """hivemind's arguments, and our own.

        Which experts: either expert_uids, or num_experts of them: those in checkpoint_dir, and others drawn from
        expert_pattern (those that no live server hosts, if there are initial_peers), or named expert.0, expert.1, ...
        expert_cls is a block of the server (ffn, transformer, ...), one of `blocks` (an entry of that name in the
        configuration: docs/blocks.md), the path of one's own, a registered class or its name (register_expert_class), or
        what export() has made of a module; hidden_dim is 1024, or what was exported. expert_options are further options of
        an entry of `experts`. optim_cls is "adam", "adamw", "sgd", "none", torch.optim.Adam, AdamW, SGD,
        a functools.partial of these, or a function that makes one of parameters. scheduler is "none", "linear" or "cosine". device is a part of an OpenCL device's name, "cpu", "cuda:1", or an entry of
        `devices`. initial_peers are endpoints of expertd-dhts, or host:port of DHT nodes. num_handlers and
        stats_report_interval have no meaning here: a frontend is one process, and stats() are always there. A host that
        other machines reach needs insecure=True: whoever reaches it may use and train the experts."""
        given = [list(expert_uids)] if expert_uids is not None else []
        if bool(given) == (num_experts is not None) or given and expert_pattern is not None:
            raise InvalidArgument("either expert_uids, or num_experts (with or without expert_pattern)")
        peers = [initial_peers] if isinstance(initial_peers, str) else [str(peer) for peer in initial_peers]
        uids = given[0] if given else cls._choose(num_experts or 0, expert_pattern, peers, checkpoint_dir)
        for uid in uids:
            if not is_valid_uid(uid):
                raise InvalidArgument(f"{uid!r} is no uid of an expert, such as ffn.4.17")
        if scheduler not in schedule_name_to_scheduler:
            raise InvalidArgument(f"schedules are {', '.join(schedule_name_to_scheduler)}; {scheduler!r} was given")
        size = hidden_dim or (expert_cls.hidden_dim if isinstance(expert_cls, Exported) else 1024)
        block, own = hosted(expert_cls, size)
        entry: Dict[str, Any] = {"block": block, "hidden_dim": size, "max_batch_size": max_batch_size,
                                 "min_batch_size": min_batch_size, **_optimizer(optim_cls)}
        if entry["optimizer"] != "none":  # which the server would refuse beside what makes a step
            entry.update(schedule=schedule_name_to_scheduler[scheduler], clip_norm=clip_grad_norm or 0.0)
            if scheduler != "none":
                entry.update(warmup_steps=num_warmup_steps or 0, total_steps=num_training_steps or 0)
        elif scheduler != "none" or clip_grad_norm:
            warnings.warn("without an optimizer scheduler and clip_grad_norm have no effect", stacklevel=2)
        entry["seed"] = random.getrandbits(63) if seed is None else seed
        entry.update(expert_options or {})
        listen = f"tcp://{host}:{free_port(host) if port is None else port}"
        bootstrap: List[str] = []
        for peer in peers:
            bootstrap += DHT(peer).bootstrap_addresses() if peer.startswith(_SCHEMES) else [_bootstrap_address(peer)]
        config: Dict[str, Any] = {
            "server": {"name": f"python-{os.getpid()}-{random.getrandbits(32):08x}",
                       **({"insecure": True} if insecure else {})},
            "frontend": {"listen": [listen], **({"advertise": advertise} if advertise else {})},
            "devices": [_device(device)],
            "experts": [{"uid": uid, **entry} for uid in uids],
            "dht": {"listen": f"tcp://{host}:{free_port(host)}", "port": 0, "network_id": network_id,
                    "update_period": update_period, "expiration": expiration or 0,
                    **({"bootstrap": bootstrap} if bootstrap else {})},
        }
        if blocks or own:
            config["blocks"] = [*blocks, *([own.exported.block] if own else [])]
        if checkpoint_dir is not None:
            config["checkpoint"] = {"dir": os.path.abspath(checkpoint_dir),
                                    "interval": update_period if checkpoint_interval is None else checkpoint_interval}
        weights = (lambda uid: own.weights(uid, entry["seed"])) if own else None
        return cls(config, uids=uids, with_dht=with_dht, bin_dir=bin_dir, start=start, weights=weights, progress=progress)

    @staticmethod
    def _choose(count: int, pattern: Optional[str], peers: List[str], checkpoint_dir: Optional[str]) -> List[str]:
        uids = _in_checkpoints(checkpoint_dir)
        if len(uids) > count:
            raise InvalidArgument(f"{checkpoint_dir} has checkpoints of {len(uids)} experts, and num_experts is {count}")
        missing = count - len(uids)
        if pattern is None:
            return uids + [uid for uid in (f"expert.{i}" for i in range(count + len(uids))) if uid not in uids][:missing]
        asked = [peer for peer in peers if peer.startswith(_SCHEMES)]
        drawn = DHT(asked).draw(pattern, count) if asked else _sample(pattern, count)
        return uids + [uid for uid in drawn if uid not in uids][:missing]

    def __repr__(self) -> str:
        state = "running" if self.is_alive() else "not running"
        return f"Server({len(self.uids)} experts at {self.endpoint}, {state})"

    @property
    def endpoint(self) -> str:
        frontend = self.config["frontend"]
        return str(frontend.get("advertise") or frontend["listen"][0])

    @property
    def dht(self) -> DHT:
        if self._dht is None:
            if not self._with_dht:
                raise Unavailable("this server was made without an expertd-dht (with_dht=False)")
            self._dht = DHT(self.config["dht"]["listen"])
        return self._dht

    @property
    def client(self) -> Client:
        return Client(self.endpoint)

    @property
    def peer_info(self) -> PeerInfo:
        return PeerInfo(self.endpoint, [self.config["dht"]["listen"]] if self._with_dht else [])

    def run_in_background(self, await_ready: bool = True, timeout: Optional[float] = None) -> None:
        """Starts the programs; returns when every expert answers."""
        self._group = Group(bin_dir=self._bin_dir)
        path = os.path.join(self._group.folder, "config.yaml")
        server = {"run_dir": os.path.join(self._group.folder, "run"), **self.config["server"]}
        programs = ["expertd-frontend", "expertd-runtime"] + (["expertd-dht"] if self._with_dht else [])
        try:
            with open(path, "w", encoding="utf-8") as out:
                json.dump({**self.config, "server": server, "experts": self._entries()}, out)  # which is YAML too
            self._group.start(programs, ["--config", path], remove=[f"/dev/shm/expertd.{server['name']}.*"])
            if await_ready:
                self.await_ready(timeout)
        except BaseException:
            self.shutdown()
            raise

    def _entries(self) -> List[Dict[str, Any]]:
        """The configuration's experts, those with weights of this program's with a file each."""
        entries: List[Dict[str, Any]] = self.config["experts"]
        if self._weights is None or self._group is None:
            return entries
        folder = os.path.join(self._group.folder, "weights")
        os.makedirs(folder, exist_ok=True)
        written = []
        with Progress("weights", len(entries), self._progress) as progress:
            for entry in entries:
                path = os.path.join(folder, entry["uid"] + ".safetensors")
                save_tensors(path, self._weights(entry["uid"]))
                written.append({"weights": path, **entry})
                progress.reach(len(written))
        return written

    def await_ready(self, timeout: Optional[float] = None) -> None:
        """Until every expert answers, and can be found."""
        if self._group is None:
            raise Unavailable("the server was not started")
        end = time.monotonic() + (START_TIMEOUT if timeout is None else timeout)
        with Progress("experts alive", len(self.uids), self._progress) as progress:
            self._group.wait_for(lambda: self._all_alive(progress), end - time.monotonic(), "all experts are alive")
        if self._with_dht:
            self._group.wait_for(self._all_found, max(1.0, end - time.monotonic()), "all experts are found")

    def _all_alive(self, progress: Optional[Progress] = None) -> bool:
        try:
            pong = Client(self.endpoint, timeout=2.0, retry_for=1.0).ping()
            if progress is not None:
                progress.reach(pong.experts_alive)
            return pong.experts == pong.experts_alive == len(self.uids)
        except ExpertdError:
            return False

    def _all_found(self) -> bool:
        try:
            return all(self.endpoint in endpoints for endpoints in self.dht.resolve(self.uids, timeout=5.0, fresh=True))
        except ExpertdError:
            return False

    @property
    def ready(self) -> bool:
        return self.is_alive() and self._all_alive()

    def is_alive(self) -> bool:
        return self._group is not None and self._group.is_alive()

    def log(self) -> str:
        """What its programs have said."""
        return self._group.log() if self._group is not None else ""

    @property
    def pids(self) -> Dict[str, int]:
        """Of its programs, by name."""
        return dict(self._group.pids) if self._group is not None else {}

    def run(self) -> None:
        """Runs it in the foreground until it ends or ^C."""
        if self._group is None:
            self.run_in_background()
        try:
            self.join()
        finally:
            self.shutdown()

    def join(self, timeout: Optional[float] = None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        while self.is_alive() and (end is None or time.monotonic() < end):
            time.sleep(0.1)

    def shutdown(self) -> None:
        """Ends it cleanly: checkpoints are written, if it has a folder for them. Twice is fine."""
        if self._group is not None:
            self._group.stop()

    def __enter__(self) -> "Server":
        if self._group is None:
            self.run_in_background()
        return self

    def __exit__(self, *_: Any) -> None:
        self.shutdown()


@contextmanager
def background_server(*args: Any, shutdown_timeout: Optional[float] = None, **kwargs: Any) -> Iterator[PeerInfo]:
    """Server.create(...) for as long as the with-block runs; yields its PeerInfo."""
    kwargs["start"] = True
    server = Server.create(*args, **kwargs)
    try:
        yield server.peer_info
    finally:
        server.shutdown()


def get_experts(dht: DHT, uids: Sequence[str], expiration_time: Optional[float] = None, **options: Any) -> List[Any]:
    """A RemoteExpert for each uid that a live server hosts, None for the others, in the same order."""
    from .expert import RemoteExpert
    for uid in uids:
        if not is_valid_uid(uid):
            raise InvalidArgument(f"{uid!r} is no uid of an expert, such as ffn.4.17")
    return [RemoteExpert(uid, dht, **options) if endpoints else None
            for uid, endpoints in zip(uids, dht.resolve(list(uids), fresh=True))]


def declare_experts(dht: DHT, uids: Sequence[str], expiration_time: Optional[float] = None, wait: bool = True) -> Dict[str, bool]:
    """A server's expertd-dht publishes what it hosts, for as long as it is alive; nobody else can."""
    raise Unimplemented("experts are published by the expertd-dht of the server that hosts them: add them to a server's "
                        "configuration (experts:), or start one with Server.create(expert_uids=[...])")
