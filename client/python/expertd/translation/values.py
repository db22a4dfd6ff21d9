"""What the operations of a trace give."""
from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Tuple

import torch
from torch import nn

from .functions import Function, factor_of

__all__ = ["DROPOUTS", "MASK_DTYPES", "Mask", "Mean", "Normalized", "Parameter", "Scores", "Value", "scaled_by", "some_of", "through",
           "without_factor"]

MASK_DTYPES = {torch.int64: "int64", torch.bool: "bool"}
DROPOUTS = (nn.Dropout, nn.AlphaDropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)


class Value(NamedTuple):
    """An input's or a layer's result, seen through `function`, element by element (None: as it is), laid out anew, or a
    part of it."""
    name: str
    layout: str = "rows"  # [rows, ...]; "tokens first": 0 and 1 exchanged; "split": [rows, tokens, heads, d];
    #                       "heads": [rows, heads, tokens, d]; "turned": [rows, heads, d, tokens]; "turned rows": [rows, ..., n, m]
    heads: int = 0
    part: Optional[Tuple[int, int, int]] = None  # begin, end, and the size, of the last dimension
    function: Optional[Function] = None
    instead: Optional[Tuple[str, Any, Any]] = None  # the layer that it is of two operands, if it is no activation
    cuts: Tuple[Tuple[Any, Function], ...] = ()  # values on the way here, and what of them makes this; the nearest first


class Mask(NamedTuple):
    """An int64 or bool input."""
    name: str
    scale: float = 1.0
    inverted: bool = False


class Mean(NamedTuple):
    """Of the squares of a value's last dimension, plus epsilon; then perhaps its root, or the inverse of that."""
    of: Value
    epsilon: float = 0.0
    form: str = "mean"


class Normalized(NamedTuple):
    of: Value
    epsilon: float


class Scores(NamedTuple):
    """Of attention, before ("scores") or behind the softmax ("shares")."""
    q: Value
    k: Value
    scale: float = 1.0
    mask: Optional[Mask] = None
    form: str = "scores"


class Parameter(NamedTuple):
    """Rows begin to end of one; end None: all."""
    name: str
    begin: int = 0
    end: Optional[int] = None


def some_of(args: Any) -> List[Any]:
    """What is not a plain number, text or size in arguments."""
    found: List[Any] = []
    kinds = (Value, Mask, Mean, Normalized, Scores, Parameter)
    for one in args.values() if isinstance(args, dict) else args:
        if isinstance(one, kinds):
            found.append(one)
        elif isinstance(one, (tuple, list)):
            found += some_of(one)
    return found


def scaled_by(x: Value, factor: float) -> Value:
    return x if factor == 1 else through(x, lambda t: t * factor)


def without_factor(x: Value) -> Tuple[float, Value]:
    factor = factor_of(x.function)
    return (1.0, x) if factor is None else (factor, x._replace(function=None, instead=None, cuts=()))


def through(x: Value, function: Function) -> Value:
    def both(t: torch.Tensor) -> torch.Tensor:
        return function(t if x.function is None else x.function(t))
    def after(way: Function) -> Function:
        return lambda t: function(way(t))
    cuts = ((x, function), *((value, after(way)) for value, way in x.cuts)) if x.function is not None else ()
    return x._replace(function=both, instead=None, cuts=cuts)
