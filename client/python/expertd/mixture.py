"""Mixtures of remote experts: hivemind's RemoteMixtureOfExperts and RemoteSwitchMixtureOfExperts."""
from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import nn

from .beam import MoEBeamSearcher
from .client import Client
from .codecs import Codec, codec_name
from .compiling import untraced
from .dht import DHT, Found
from .errors import ExpertdError, InvalidArgument, Unavailable
from .expert import _in_order
from .gather import Settings, Target, call_many
from .info import ExpertInfo
from .staging import move

__all__ = ["RemoteMixtureOfExperts", "RemoteSwitchMixtureOfExperts"]


class RemoteMixtureOfExperts(nn.Module):
    """A gate (`proj`, linear, in_features to sum(grid_size) scores) sends each sample to the k_best live experts whose
    coordinates' scores have the greatest sum, and averages what they answer by the softmax of these sums. Each server gets
    one message with all samples of its experts; with timeout_after_k_min each expert has one, which a slow one does not hold up.

    Once each sample has answers of k_min experts (or of all that it has), the others are waited for no longer than
    timeout_after_k_min seconds; None: until forward_timeout, which counts from the start. Fewer answers than k_min (to all
    samples together) raise DeadlineExceeded, a sample without any raises Unavailable unless allow_zero_outputs, which
    makes it zeros; backward_k_min and backward_timeout are the same of a backward, where a failing expert contributes no
    gradient. detect_anomalies: inputs and gradients with NaN or infinite values raise ValueError, and answers with them
    count as failures. compression: the codec in which tensors
    travel; None: the one that the experts' configuration says. Further options go to the MoEBeamSearcher."""

    def __init__(self, *, in_features: int, grid_size: Sequence[int], dht: DHT, uid_prefix: str, k_best: int, k_min: int = 1,
                 forward_timeout: Optional[float] = None, timeout_after_k_min: Optional[float] = None,
                 backward_k_min: int = 1, backward_timeout: Optional[float] = None, detect_anomalies: bool = False,
                 allow_zero_outputs: bool = False, compression: Codec = None, **dht_kwargs: Any):
        super().__init__()
        if not 0 <= k_min <= k_best or not 0 <= backward_k_min <= k_best or k_best < 1:
            raise InvalidArgument(f"k_min and backward_k_min are from 0 to k_best, which is at least 1; k_best {k_best}, "
                                  f"k_min {k_min}, backward_k_min {backward_k_min} were given")
        self.dht = dht
        self.beam_search = MoEBeamSearcher(dht, uid_prefix, grid_size, **dht_kwargs)
        self.k_best = k_best
        self._compression = None if compression is None else codec_name(compression)
        self.settings = Settings(k_min, backward_k_min, timeout_after_k_min, forward_timeout, backward_timeout,
                                 detect_anomalies, allow_zero_outputs)
        self.proj = nn.Linear(in_features, sum(self.beam_search.grid_size))
        self._expert_info: Optional[ExpertInfo] = None

    def extra_repr(self) -> str:
        return f"{self.beam_search!r}, k_best={self.k_best}, {self.settings}"

    @property
    def grid_size(self) -> Tuple[int, ...]:
        return self.beam_search.grid_size

    @property
    def info(self) -> ExpertInfo:
        """Of any expert of the grid; they all have its schemas."""
        if self._expert_info is None:
            (found,) = self.beam_search.search(torch.zeros(1, sum(self.grid_size)), 8)
            self._expert_info = self._info_of(found)
        return self._expert_info

    def _info_of(self, found: Sequence[Found]) -> ExpertInfo:
        error: Optional[ExpertdError] = None
        for expert in found:
            for endpoint in expert.endpoints:
                try:
                    return Client(endpoint, retry_for=0).info(expert.uid)
                except ExpertdError as refused:
                    error = refused
        raise error or Unavailable(f"no live expert of {self.beam_search.uid_prefix} was found")

    @untraced
    def forward(self, input: torch.Tensor, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        """input: [samples, ..., in_features], the gate's and the experts' first; further ones are the experts'. The average
        of the experts' outputs, [samples, ...] each."""
        scores = self._scores(input)
        mask, chosen, outputs = self._call(scores, input, args, kwargs)
        logits = self.compute_expert_scores(list(scores.split(self.grid_size, dim=-1)), chosen, mask.shape[1])
        mask = mask.to(logits.device)
        weights = torch.softmax(logits.masked_fill(~mask, float("-inf")), dim=1)
        # A sample without any answer is zeros, not the softmax of nothing.
        weights = weights.masked_fill(~mask, 0.0)
        return _single([_weigh(weights, output) for output in outputs])

    def _scores(self, input: torch.Tensor) -> torch.Tensor:
        """[samples, sum(grid_size)], with a gradient."""
        if input.dim() < 2 or input.shape[-1] != self.proj.in_features:
            raise InvalidArgument(f"expected an input of shape [samples, ..., {self.proj.in_features}]; "
                                  f"{list(input.shape)} was given")
        if len(input) == 0:
            raise InvalidArgument("there are no samples in the input")
        middle = tuple(range(1, input.dim() - 1))
        scores: torch.Tensor = self.proj(self._gate_input(input.mean(dim=middle) if middle else input))
        return scores

    def _gate_input(self, input: torch.Tensor) -> torch.Tensor:
        if self.settings.detect_anomalies and not bool(torch.isfinite(input).all()):
            raise ValueError("an input has NaN or infinite values (detect_anomalies)")
        return input

    def _call(self, search_scores: torch.Tensor, input: torch.Tensor, args: Sequence[torch.Tensor],
              kwargs: Dict[str, torch.Tensor]) -> Tuple[torch.Tensor, List[List[Found]], List[torch.Tensor]]:
        """Which experts answered, which were asked, and their outputs, each [samples, k, ...]."""
        chosen = self.beam_search.search(search_scores, self.k_best)
        if self._expert_info is None and any(chosen):
            self._expert_info = self._info_of(list(dict.fromkeys(found for row in chosen for found in row))[:8])
        if self._expert_info is None:
            raise Unavailable(f"no live expert of {self.beam_search.uid_prefix} was found")
        info = self._expert_info
        inputs = _in_order(self.beam_search.uid_prefix, info.forward_schema, (input, *args), kwargs)
        samples, device = len(input), input.device
        flat = []
        inner: Tuple[int, ...] = ()
        for i, (field, tensor) in enumerate(zip(info.forward_schema, inputs)):
            own = tensor.dim() - len(field.row_shape)
            if own < 1 or tuple(tensor.shape[own:]) != field.row_shape or len(tensor) != samples:
                raise InvalidArgument(f"expected {field} of {samples} samples; a tensor of shape {list(tensor.shape)} was given")
            here = tuple(tensor.shape[1:own])
            if i > 0 and here != inner:
                raise InvalidArgument(f"inputs have different dimensions between samples and rows: {inner} and {here}")
            inner = here
            if tensor.dtype != field.dtype:
                if not (tensor.dtype.is_floating_point and field.dtype.is_floating_point):
                    raise InvalidArgument(f"expected {field}; a tensor of {tensor.dtype} was given")
                tensor = tensor.to(field.dtype)
            flat.append(tensor.flatten(0, own - 1))
        codec = info.compression if self._compression is None else self._compression
        each = 1
        for size in inner:
            each *= size
        # A sample of several rows goes to its experts as so many rows.
        targets: List[List[Target]] = []
        for row in chosen:
            mine = [Target(found.uid, found.endpoints, info.max_batch_size, codec) for found in row]
            targets += [mine] * each
        shapes = [(field.dtype, field.row_shape) for field in info.outputs_schema]
        mask, *outputs = call_many(targets, self.settings, shapes, *move(flat, torch.device("cpu")))
        if mask.shape[1] < 1:
            mask = mask.new_zeros(len(mask), 1)
            outputs = [output.new_zeros(len(mask), 1, *output.shape[2:]) for output in outputs]
        k, like = mask.shape[1], input.dtype
        mask = mask.reshape(samples, each, k).all(dim=1)
        moved = [output.to(like if output.dtype.is_floating_point else output.dtype) for output in move(outputs, device)]
        if inner:
            moved = [output.reshape(samples, *inner, k, *output.shape[2:]).movedim(1 + len(inner), 1) for output in moved]
        return mask.to(device), chosen, moved

    def compute_expert_scores(self, grid_scores: Sequence[torch.Tensor], batch_experts: Sequence[Sequence[Any]],
                              width: Optional[int] = None) -> torch.Tensor:
        """grid_scores: for each dimension [samples, size]; batch_experts: for each sample what has a uid, or uids. [samples, k]:
        the sum of each expert's coordinates' scores, with gradients; -inf where a sample has no so many."""
        k = width if width is not None else max((len(row) for row in batch_experts), default=0)
        index = torch.zeros(len(batch_experts), k, len(grid_scores), dtype=torch.long)
        there = torch.zeros(len(batch_experts), k, dtype=torch.bool)
        first = len(self.beam_search.uid_prefix)
        for i, row in enumerate(batch_experts):
            for j, expert in enumerate(row):
                index[i, j] = torch.tensor([int(c) for c in getattr(expert, "uid", expert)[first:].split(".")])
                there[i, j] = True
        index, there = index.to(grid_scores[0].device), there.to(grid_scores[0].device)
        total = sum(scores.gather(1, index[..., d]) for d, scores in enumerate(grid_scores))
        assert isinstance(total, torch.Tensor)
        return total.masked_fill(~there, float("-inf"))


class RemoteSwitchMixtureOfExperts(RemoteMixtureOfExperts):
    """A mixture whose experts' outputs are multiplied by their probabilities (the product over the dimensions of the softmax
    of their scores) and added to the input, as in Switch Transformers. Returns (output, balancing_loss); adding the loss,
    times a small weight, to the program's keeps all experts busy: it is the sum over the dimensions of size² times the
    mean over coordinates of mean probability × utilization, which is 1 for each dimension that is used evenly.

    utilization_alpha: of the moving average `grid_utilization` of how often each coordinate was used. grid_dropout: the
    probability that a coordinate is kept in training. jitter_eps: in training, the gate sees the input times a random number
    in 1 ± jitter_eps."""

    def __init__(self, *, grid_size: Sequence[int], utilization_alpha: float = 0.9, grid_dropout: float = 1.0,
                 jitter_eps: float = 1e-2, k_best: int = 1, k_min: int = 0, backward_k_min: int = 0,
                 allow_zero_outputs: bool = True, **kwargs: Any):
        super().__init__(grid_size=grid_size, k_best=k_best, k_min=k_min, backward_k_min=backward_k_min,
                         allow_zero_outputs=allow_zero_outputs, **kwargs)
        self.utilization_alpha, self.grid_dropout, self.jitter_eps = utilization_alpha, grid_dropout, jitter_eps
        self.register_buffer("grid_utilization", torch.cat([torch.full((size,), 1.0 / size) for size in self.grid_size]))

    @untraced
    def forward(self, input: torch.Tensor, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        """(output, balancing_loss); the output has the input's shape."""
        scores = self._scores(input)
        if self.training and self.grid_dropout < 1.0:
            scores = scores.masked_fill(self._dropped(scores), float("-inf"))
        grid_scores = list(scores.split(self.grid_size, dim=-1))
        probabilities = [torch.softmax(part, dim=-1) for part in grid_scores]
        mask, chosen, outputs = self._call(scores, input, args, kwargs)
        logs = [torch.log_softmax(part, dim=-1) for part in grid_scores]
        weights = self.compute_expert_scores(logs, chosen, mask.shape[1]).exp().masked_fill(~mask, 0.0)
        if self.training:
            self._count(chosen, mask)
        utilization = self.grid_utilization.split(self.grid_size)
        loss = sum((part.float().mean(dim=0) * used).mean() * len(used) ** 2 for part, used in zip(probabilities, utilization))
        mixed = [_weigh(weights, output) for output in outputs]
        mixed[0] = mixed[0] + input
        return _single(mixed), loss

    def _gate_input(self, input: torch.Tensor) -> torch.Tensor:
        input = super()._gate_input(input)
        if self.training and self.jitter_eps > 0:
            return input * torch.empty_like(input).uniform_(1 - self.jitter_eps, 1 + self.jitter_eps)
        return input

    def _dropped(self, scores: torch.Tensor) -> torch.Tensor:
        """[samples, sum(grid_size)]: coordinates that are not to be chosen; of each dimension at least one stays."""
        parts = []
        for size in self.grid_size:
            chance = torch.rand(len(scores), size, device=scores.device)
            dropped = chance >= self.grid_dropout
            parts.append(dropped & (chance != chance.amin(dim=1, keepdim=True)))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def _count(self, chosen: Sequence[Sequence[Found]], mask: torch.Tensor) -> None:
        used = torch.zeros(sum(self.grid_size))
        first, answered = len(self.beam_search.uid_prefix), mask.tolist()
        for i, row in enumerate(chosen):
            for j, found in enumerate(row):
                offset = 0
                for size, coordinate in zip(self.grid_size, found.uid[first:].split(".")):
                    used[offset + int(coordinate)] += answered[i][j]
                    offset += size
        shares = torch.cat([part / part.sum().clamp_min(1.0) for part in used.split(self.grid_size)])
        if used.sum() > 0:
            shares = shares.to(self.grid_utilization)
            self.grid_utilization.mul_(self.utilization_alpha).add_(shares, alpha=1 - self.utilization_alpha)


def _weigh(weights: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Sum over dimension 1 of output [samples, k, ...] times weights [samples, k]."""
    shaped = weights.to(output.dtype).reshape(*weights.shape, *[1] * (output.dim() - 2))
    return (shaped * output).sum(dim=1)


def _single(outputs: List[torch.Tensor]) -> Union[torch.Tensor, Tuple[torch.Tensor, ...]]:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)
