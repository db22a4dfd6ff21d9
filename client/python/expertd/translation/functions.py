"""Functions of single numbers, and what of them can be told by trying: whether two are one, and whether one is a line, or an
activation of the server's between factors."""
from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import torch
from torch import fx

from ..declaration import ACTIVATIONS

__all__ = ["Function", "agree", "composed", "factor_of", "line_of", "rounded", "same", "steps_of"]

Function = Callable[[torch.Tensor], torch.Tensor]

_GRID = torch.linspace(-9, 9, 181, dtype=torch.float64)
_FAR = 40.0  # where an activation is a line


def agree(a: Function, b: Function) -> bool:
    """Whether two functions of single numbers are one. Theirs may have 0.7978845608 for the root of 2/pi."""
    try:
        return bool(torch.allclose(a(_GRID), b(_GRID), rtol=1e-6, atol=1e-7))
    except (RuntimeError, TypeError):
        return False


def factor_of(function: Optional[Function]) -> Optional[float]:
    """c of a function that multiplies with c."""
    line = line_of(function)
    return line[0] if line is not None and line[1] == 0 else None


def line_of(function: Optional[Function]) -> Optional[Tuple[float, float]]:
    """(a, b) of a function that gives a t + b."""
    if function is None:
        return 1.0, 0.0
    try:
        zero, one = (float(function(torch.full((1,), t, dtype=torch.float64))) for t in (0.0, 1.0))
    except (RuntimeError, TypeError):
        return None
    weight = one - zero
    if not math.isfinite(weight) or weight == 0 or not agree(function, lambda t: t * weight + zero):
        return None
    return rounded(weight), rounded(zero)


def rounded(number: float) -> float:
    """As a float32 is told from others."""
    return float(f"{number:.9g}")


def steps_of(function: Function) -> Optional[List[Dict[str, Any]]]:
    """The layers of one value that are it: an activation, a line, or an activation between two factors."""
    for activation, its in ACTIVATIONS.items():
        if activation != "none" and agree(function, its):
            return [{"layer": "activation", "activation": activation}]
    line = line_of(function)
    if line is not None:
        return [_affine_step(*line)]
    for activation, its in ACTIVATIONS.items():
        factors = None if activation == "none" else _factors(function, its)
        if factors is not None:
            inner, outer = factors
            return [*([_affine_step(inner, 0.0)] if inner != 1 else []), {"layer": "activation", "activation": activation},
                    *([_affine_step(outer, 0.0)] if outer != 1 else [])]
    return None


def _affine_step(scale: float, shift: float) -> Dict[str, Any]:
    return {"layer": "affine", **({"scale": scale} if scale != 1 else {}), **({"shift": shift} if shift != 0 else {})}


def _factors(function: Function, activation: Function) -> Optional[Tuple[float, float]]:
    """(a, k) of a function that gives k activation(a t), a > 0: x sigmoid(1.702 x) is one of silu. Far out it is a k t, and the
    nearer at 1 to a k the greater a is."""
    def at(t: float, one: Function) -> float:
        return float(one(torch.full((1,), t, dtype=torch.float64)))
    try:
        slope, wanted = at(_FAR, function) / _FAR, at(1.0, function)
        if not (math.isfinite(slope) and slope != 0):
            return None
        low, high = 1e-3, 1e3
        for _ in range(200):
            a = math.sqrt(low * high)
            if at(a, activation) / a < wanted / slope:
                low = a
            else:
                high = a
        a = 1.0 if abs(low - 1) < 1e-6 else float(f"{low:.6g}")
        outer = rounded(slope / a)
        return (a, outer) if agree(function, lambda t: outer * activation(a * t)) else None
    except (RuntimeError, TypeError, ZeroDivisionError, OverflowError):
        return None


def same(t: torch.Tensor) -> torch.Tensor:
    return t


def composed(n: fx.Node, operands: Mapping[fx.Node, Optional[Function]], env: Mapping[fx.Node, Any]) -> Function:
    """The operation as a function of what these operands are functions of."""
    rest = {node: env[node] for node in n.all_input_nodes if node not in operands}

    def function(t: torch.Tensor) -> torch.Tensor:
        def pick(node: fx.Node) -> Any:
            if node not in operands:
                return rest[node]
            inner = operands[node]
            return t.clone() if inner is None else inner(t)
        args, kwargs = fx.node.map_arg(n.args, pick), fx.node.map_arg(n.kwargs, pick)
        result: torch.Tensor = (getattr(args[0], n.target)(*args[1:], **kwargs) if isinstance(n.target, str)
                                else n.target(*args, **kwargs))
        return result
    return function
