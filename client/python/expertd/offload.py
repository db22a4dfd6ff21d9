"""The experts of a transformers model elsewhere: its router and attention stay where they are."""
from __future__ import annotations

import re
import time
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from . import tags
from .client import DEFAULT_RETRY_FOR, DEFAULT_TIMEOUT, Client
from .codecs import Codec, codec_name
from .compiling import untraced
from .dht import DHT
from .errors import ExpertdError, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from .info import ExpertInfo
from .parts import start_all
from .staging import to_device, to_host
from .task import Task, by_load

__all__ = ["OffloadedExperts", "offload_experts"]

Where = Union[str, Client, DHT, Sequence[Union[str, Client]]]
_ELSEWHERE = (Unavailable, NotFound, ResourceExhausted)
_PAUSE = 0.2  # seconds before experts whose servers have all failed are looked up again
_FAMILIES = {  # whose blocks' routing of transformers 4 is known here: whether the weights are normalised (None: the config says)
    "mixtral": True, "qwen3_moe": None, "olmoe": None, "qwen2_moe": None}
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


class _Places:
    """Where each uid is hosted: found by a DHT, or by what named servers list."""

    def __init__(self, where: Where, prefix: str):
        self.dht = where if isinstance(where, DHT) else None
        self.found: Dict[str, List[str]] = {}
        self.text = repr(where) if self.dht is not None else ""
        if self.dht is None:
            given: Any = [where] if isinstance(where, (str, Client)) else where
            clients: List[Client] = [Client(each) if isinstance(each, str) else each for each in given]
            if not clients:
                raise InvalidArgument("no server was given")
            self.text = ", ".join(client.endpoint for client in clients)
            for client in clients:
                for entry in client.list(prefix):
                    self.found.setdefault(entry.uid, []).append(client.endpoint)

    def of(self, uids: Sequence[str], fresh: bool = False) -> List[List[str]]:
        if self.dht is not None:
            return [by_load(endpoints) for endpoints in self.dht.resolve(uids, fresh=fresh)]
        return [by_load(self.found.get(uid, ())) for uid in uids]


class _Settings(NamedTuple):
    timeout: float
    retry_for: float
    compression: Optional[str]


class OffloadedExperts(nn.Module):
    """One layer's experts, `uids` by their numbers. In place of what transformers 5 has there; called with hidden_states [tokens,
    hidden], the chosen experts [tokens, k] and their weights of the same shape, all calls of a layer are under way at once, in one message to each
    server. A backward goes to the experts where hidden_states needs a gradient."""

    def __init__(self, uids: Sequence[str], places: _Places, info: ExpertInfo, settings: _Settings):
        super().__init__()
        self.uids, self.places, self.info, self.settings = list(uids), places, info, settings
        self.num_experts = len(self.uids)

    def extra_repr(self) -> str:
        return f"{self.uids[0]} ... {self.uids[-1]} at {self.places.text}"

    @untraced
    def forward(self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor) -> torch.Tensor:
        if top_k_index.dtype.is_floating_point:  # some families' order
            top_k_index, top_k_weights = top_k_weights, top_k_index
        hidden = hidden_states.reshape(-1, hidden_states.shape[-1])
        index = top_k_index.reshape(len(hidden), -1)
        if top_k_weights.shape != top_k_index.shape:  # of all experts
            top_k_weights = top_k_weights.reshape(len(hidden), -1).gather(1, index)
        if len(hidden) == 0:
            return hidden_states
        flat = index.reshape(-1)
        order = torch.argsort(flat, stable=True)
        order = order[flat[order] < self.num_experts]  # what is beyond marks a place that has no expert
        token = torch.div(order, index.shape[1], rounding_mode="floor")
        counts = torch.bincount(flat[order], minlength=self.num_experts).tolist()
        rows = hidden[token]
        answers = _Call.apply(self, counts, rows) if len(rows) else rows
        weights = top_k_weights.reshape(-1)[order]
        summed = torch.zeros_like(hidden).index_add(0, token, (answers * weights[:, None]).to(hidden.dtype))
        return summed.reshape(hidden_states.shape)

    # ---- calls: rows of experts one behind the other, `counts` of each

    def call(self, counts: Sequence[int], rows: torch.Tensor, grads: Optional[torch.Tensor]) -> torch.Tensor:
        dtype = self.info.forward_schema[0].dtype
        out = self.info.outputs_schema[0].dtype
        x, *others = to_host([rows.detach().to(dtype), *([] if grads is None else [grads.detach().to(out)])])
        g = others[0] if others else None
        parts: List[Tuple[str, slice]] = []
        begin = 0
        for uid, count in zip(self.uids, counts):
            for first in range(begin, begin + count, self.info.max_batch_size):
                parts.append((uid, slice(first, min(first + self.info.max_batch_size, begin + count))))
            begin += count
        result = torch.empty(len(x), self.info.outputs_schema[0].row_shape[0] if grads is None else x.shape[1],
                             dtype=out if grads is None else dtype)
        self._run(parts, x, g, result)
        return to_device([result], rows.device)[0].to(rows.dtype)

    def _run(self, parts: List[Tuple[str, slice]], x: torch.Tensor, g: Optional[torch.Tensor], result: torch.Tensor) -> None:
        end = time.monotonic() + self.settings.timeout
        give_up = min(end, time.monotonic() + self.settings.retry_for)
        fresh = False
        while parts:
            places = dict(zip([uid for uid, _ in parts], self.places.of([uid for uid, _ in parts], fresh)))
            tasks: List[Task] = []
            again: List[Tuple[str, slice]] = []
            error: Optional[ExpertdError] = None
            try:
                for uid, at in parts:
                    tasks.append(Task(uid, places[uid], [x[at]], None if g is None else [g[at]], timeout=max(0.001, end - time.monotonic()),
                                retry_for=self.settings.retry_for, patient=self.places.dht is None,
                                compression=self.settings.compression))
                start_all(tasks)
                for (uid, at), task in zip(parts, tasks):
                    try:
                        (result[at],) = task.outputs()
                    except _ELSEWHERE as refused:
                        if not refused.not_applied or self.places.dht is None:
                            raise
                        error = refused
                        again.append((uid, at))
            finally:
                for task in tasks:
                    if not task.done():
                        task.cancel()
            if error is not None:
                if time.monotonic() + _PAUSE >= give_up:
                    raise error
                time.sleep(_PAUSE)
            parts, fresh = again, True


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, experts: OffloadedExperts, counts: Sequence[int], rows: torch.Tensor) -> torch.Tensor:
        ctx.experts, ctx.counts, ctx.tags = experts, counts, tags.current()
        ctx.save_for_backward(rows)
        return experts.call(counts, rows, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: torch.Tensor) -> Any:
        (rows,) = ctx.saved_tensors
        with tags.under(ctx.tags if tags.current() is tags.NONE else tags.current()):
            return None, None, ctx.experts.call(ctx.counts, rows, grads)


class _Block4(nn.Module):
    """A mixture's block as transformers 4 has it, whose experts are modules in a list that are called one behind the other."""

    def __init__(self, block: Any, experts: OffloadedExperts, normalised: bool):
        super().__init__()
        self.gate, self.experts, self.normalised = block.gate, experts, normalised
        self.top_k, self.num_experts = int(block.top_k), experts.num_experts
        self.jitter_noise = float(getattr(block, "jitter_noise", 0.0) or 0.0)
        self.shared_expert, self.shared_expert_gate = getattr(block, "shared_expert", None), getattr(block, "shared_expert_gate", None)

    def forward(self, hidden_states: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """(the layer's output, the router's logits [tokens, experts])"""
        if self.training and self.jitter_noise > 0:
            hidden_states = hidden_states * torch.empty_like(hidden_states).uniform_(1 - self.jitter_noise, 1 + self.jitter_noise)
        hidden = hidden_states.reshape(-1, hidden_states.shape[-1])
        logits = self.gate(hidden)
        weights, chosen = torch.topk(torch.softmax(logits, dim=1, dtype=torch.float), self.top_k, dim=-1)
        if self.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        output = self.experts(hidden, chosen, weights.to(hidden.dtype))
        if self.shared_expert is not None:
            shared = self.shared_expert(hidden)
            output = output + (shared if self.shared_expert_gate is None else torch.sigmoid(self.shared_expert_gate(hidden)) * shared)
        return output.reshape(hidden_states.shape), logits


def offload_experts(model: nn.Module, where: Where, *, layers: Optional[Iterable[int]] = None, prefix: Optional[str] = None,
                    timeout: float = DEFAULT_TIMEOUT, retry_for: float = DEFAULT_RETRY_FOR, compression: Codec = None) -> List[int]:
    """Replaces the experts of a transformers model by remote ones; its router, its attention and its shared experts stay. Returns the
    numbers of the layers that were changed.

        expertd.offload_experts(model, ["tcp://10.0.0.7:31330", "tcp://10.0.0.8:31330"])      # or a DHT
        model.generate(**inputs)

    `where`: a server's endpoint, several, a Client, or a DHT; expert E of layer L has the uid `prefix`.L.E, as scripts/host-model names
    them. `prefix`: None: the config's model_type (olmoe, mixtral, qwen3-moe). `layers`: which layers; None: all that have experts.
    `timeout`: seconds for one layer's calls. `retry_for` and `compression`: as of Client; None: what the experts' configuration says.

    Families: all whose experts transformers 5 packs (a module that is called with the chosen experts and their weights), and of
    transformers 4's Mixtral, Qwen2-MoE, Qwen3-MoE and OLMoE. The model's own experts' weights are dropped, and never looked at, so
    that they may be on the meta device. ValueError: the model has no such layers. NotFound: which experts nobody hosts.
    InvalidArgument: what is hosted has another shape. Then nothing was changed."""
    config = getattr(model, "config", None)
    kind = str(getattr(config, "model_type", ""))
    if prefix is None:
        prefix = kind.replace("_", "-")
    if not prefix:
        raise InvalidArgument("the model's config has no model_type: prefix= says how the experts' uids begin")
    prefix = prefix.rstrip(".")
    found = _layers_of(model)
    wanted = sorted(found) if layers is None else sorted(set(layers))
    without = [layer for layer in wanted if layer not in found]
    if without or not wanted:
        raise ValueError(f"{type(model).__name__} has no experts that are known here"
                         + (f" in its layers {', '.join(map(str, without))}; it has some in {sorted(found)}" if found else ""))
    places = _Places(where, prefix + ".")
    made: List[Tuple[nn.Module, str, nn.Module]] = []
    checked: Dict[Tuple[Any, ...], ExpertInfo] = {}
    for layer in wanted:
        block, count = found[layer]
        uids = [f"{prefix}.{layer}.{expert}" for expert in range(count)]
        hosted = places.of(uids)
        missing = [uid for uid, endpoints in zip(uids, hosted) if not endpoints]
        if missing:
            raise NotFound(f"nobody hosts {len(missing)} of the {count} experts of layer {layer}, {missing[0]} for one", uid=missing[0],
                           endpoint=places.text)
        servers = tuple(sorted({endpoint for endpoints in hosted for endpoint in endpoints}))
        info = checked.get(servers)
        if info is None:  # one expert of each server speaks for the others
            by_server = {endpoints[0]: uid for uid, endpoints in zip(uids, hosted)}
            infos = [Client(endpoint, timeout=timeout, retry_for=retry_for).info(uid) for endpoint, uid in by_server.items()]
            for one in infos:
                _check(one, config)
            info = checked[servers] = min(infos, key=lambda one: one.max_batch_size)
        codec = info.compression if compression is None else codec_name(compression)
        experts = OffloadedExperts(uids, places, info, _Settings(timeout, retry_for, codec))
        if isinstance(block.experts, nn.ModuleList):
            normalised = _FAMILIES[kind]
            if normalised is None:
                normalised = bool(getattr(block, "norm_topk_prob", getattr(config, "norm_topk_prob", False)))
            parent, name = _parent(model, block)
            made.append((parent, name, _Block4(block, experts, normalised)))
        else:
            made.append((block, "experts", experts))
    for parent, name, module in made:
        module.train(parent.training)
        setattr(parent, name, module)
    return wanted


def _layers_of(model: nn.Module) -> Dict[int, Tuple[Any, int]]:
    """The blocks with experts by layer, and how many experts each has."""
    kind = str(getattr(getattr(model, "config", None), "model_type", ""))
    found: Dict[int, Tuple[Any, int]] = {}
    for path, module in model.named_modules():
        layer = _LAYER.search(path + ".")
        experts: Any = getattr(module, "experts", None)
        if layer is None or not isinstance(experts, nn.Module) or isinstance(experts, OffloadedExperts):
            continue
        if isinstance(experts, nn.ModuleList):
            if kind in _FAMILIES and hasattr(module, "gate") and hasattr(module, "top_k"):
                found[int(layer.group(1))] = module, len(experts)
        elif any(name.startswith("gate_up_proj") for name, _ in experts.named_parameters(recurse=False)):
            packed = next(p for name, p in experts.named_parameters(recurse=False) if name.startswith("gate_up_proj"))
            found[int(layer.group(1))] = module, int(packed.shape[0])
    return found


def _parent(model: nn.Module, module: nn.Module) -> Tuple[nn.Module, str]:
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is module:
                return parent, name
    raise AssertionError(module)


def _check(info: ExpertInfo, config: Any) -> None:
    hidden = getattr(config, "hidden_size", None)
    shape = (hidden,)
    if hidden is not None and ([field.row_shape for field in info.forward_schema] != [shape]
                               or [field.row_shape for field in info.outputs_schema] != [shape]):
        raise InvalidArgument(f"{info.uid} is a {info.block}({', '.join(map(str, info.forward_schema))}); the model's experts take and give "
                              f"rows of {hidden}", uid=info.uid)
    widths = {int(getattr(config, name)) for name in ("moe_intermediate_size", "intermediate_size")
              if getattr(config, name, None) is not None}
    given = info.arguments.get("intermediate_size")
    if given is not None and widths and int(given) not in widths:
        raise InvalidArgument(f"{info.uid} has an intermediate size of {int(given)}, the model's experts of "
                              f"{' or '.join(map(str, sorted(widths)))}", uid=info.uid)
