"""The server's built-in blocks as torch modules, of the same results and state-dict names: to have an expert at home.

    expert = expertd.built_in.Feedforward(64)
    expert.load_state_dict(expertd.load_tensors(checkpoint), strict=False)   # the optimizer's state is in it, too"""
from __future__ import annotations

import time
from typing import Any, Callable, Dict, Tuple, Type

import torch
from torch import nn

from .declaration import gelu_tanh

__all__ = ["DeterministicDropout", "DelayedNop", "Feedforward", "Nop", "Perceptron", "Transformer", "classes", "samples"]


class Feedforward(nn.Module):
    """`ffn`: LayerNorm(x + W2 gelu(W1 x)) of x [rows, hidden_dim]."""

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.ffn, self.ffn_output = nn.Linear(hidden_dim, 4 * hidden_dim), nn.Linear(4 * hidden_dim, hidden_dim)
        self.layer_norm = nn.LayerNorm(hidden_dim, eps=1e-12)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer_norm(input + self.ffn_output(gelu_tanh(self.ffn(input))))
        return result


class Transformer(nn.Module):
    """`transformer`: an encoder layer of src [rows, tokens, hidden_dim], whose norms are behind; src_key_padding_mask [rows, tokens]
    of bool is true for keys to be left out. No dropout."""

    def __init__(self, hidden_dim: int, heads: int = 16):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(hidden_dim, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(hidden_dim, 4 * hidden_dim), nn.Linear(4 * hidden_dim, hidden_dim)
        self.norm1, self.norm2 = nn.LayerNorm(hidden_dim), nn.LayerNorm(hidden_dim)

    def forward(self, src: torch.Tensor, src_key_padding_mask: torch.Tensor) -> torch.Tensor:
        attended, _ = self.self_attn(src, src, src, key_padding_mask=src_key_padding_mask, need_weights=False)
        src = self.norm1(src + attended)
        result: torch.Tensor = self.norm2(src + self.linear2(gelu_tanh(self.linear1(src))))
        return result


class DeterministicDropout(nn.Module):
    """`det_dropout`: W2 relu(W1 (x mask / (1 - rate))), where the mask, int64 of x's shape, is the caller's."""

    def __init__(self, hidden_dim: int, rate: float = 0.2):
        super().__init__()
        self.linear_in, self.linear_out = nn.Linear(hidden_dim, 2 * hidden_dim), nn.Linear(2 * hidden_dim, hidden_dim)
        self.rate = rate

    def forward(self, input: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear_out(torch.relu(self.linear_in(input * mask / (1 - self.rate))))
        return result


class Perceptron(nn.Module):
    """`perceptron`: three linear layers with relu between them."""

    def __init__(self, hidden_dim: int, output_dim: int = 10):
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(hidden_dim, 2 * hidden_dim), nn.Linear(2 * hidden_dim, 2 * hidden_dim)
        self.layer3 = nn.Linear(2 * hidden_dim, output_dim)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer3(torch.relu(self.layer2(torch.relu(self.layer1(input)))))
        return result


class Nop(nn.Module):
    """`nop`: the input."""

    def __init__(self, hidden_dim: int):
        super().__init__()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input.clone()


class DelayedNop(Nop):
    """`nop_delay`: the input, `delay` seconds later."""

    def __init__(self, hidden_dim: int, delay: float = 0.5):
        super().__init__(hidden_dim)
        self.delay = delay

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        time.sleep(self.delay)
        return input.clone()


classes: Dict[str, Type[Any]] = {"ffn": Feedforward, "transformer": Transformer, "perceptron": Perceptron,
                                 "det_dropout": DeterministicDropout, "nop": Nop, "nop_delay": DelayedNop}


def _row(rows: int, hidden_dim: int) -> torch.Tensor:
    return torch.empty(rows, hidden_dim)


def _text(rows: int, hidden_dim: int) -> Tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(rows, 128, hidden_dim), torch.zeros(rows, 128, dtype=torch.bool)


def _masked(rows: int, hidden_dim: int) -> Tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(rows, hidden_dim), torch.ones(rows, hidden_dim, dtype=torch.int64)


samples: Dict[str, Callable[[int, int], Any]] = {**{name: _row for name in classes}, "transformer": _text, "det_dropout": _masked}
