"""Norms, as functions or written out."""
from __future__ import annotations

from typing import Any, Dict, List

from torch import fx

from ..declaration import Source
from ..tracing import Refused
from .functions import agree
from .operations import Operations, arguments, stem_of
from .values import Mean, Parameter, Value

__all__ = ["Norms"]


class Norms(Operations):
    def _layer_norm_function(self, n: fx.Node, args: List[Any], kwargs: Dict[str, Any]) -> Value:
        shape, weight, bias, epsilon = arguments(("normalized_shape", "weight", "bias", "eps"), args[1:], kwargs)
        if len(shape) != 1 or not isinstance(weight, Parameter) or not isinstance(bias, Parameter):
            raise Refused("the server's layer_norm has a weight and a bias, and is over the last dimension")
        return self.block.add("layer_norm", stem_of(weight.name, n.name), [args[0]], {"epsilon": 1e-5 if epsilon is None else epsilon},
                           {"weight": Source(weight.name), "bias": Source(bias.name)})

    def _mean(self, n: fx.Node, x: Value, args: List[Any], kwargs: Dict[str, Any]) -> Mean:
        dim, keep = arguments(("dim", "keepdim"), args[1:], kwargs)
        dims = list(dim) if isinstance(dim, (list, tuple)) else [dim]
        if x.function is None or dims not in ([-1], [len(self._shape(n.args[0])) - 1]) or not keep \
                or not agree(x.function, lambda t: t * t):
            raise Refused("of means the server has that of squares over the last dimension, in rms_norm")
        return Mean(x._replace(function=None, instead=None))

    def _scaled(self, n: fx.Node, x: Any, weight: Any) -> Value:
        if not isinstance(weight, Parameter):
            raise Refused("the server's rms_norm has a weight")
        return self.block.add("rms_norm", stem_of(weight.name, n.name), [x.of], {"epsilon": x.epsilon}, {"weight": Source(weight.name)})
