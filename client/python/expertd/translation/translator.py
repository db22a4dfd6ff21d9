"""A trace, operation by operation: what each gives, or why the server cannot compute it."""
from __future__ import annotations

import copy
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import fx, nn

from ..declaration import Source
from ..tracing import ExportError, Refused, inner_path
from .attention import Attention
from .elementwise import Elementwise
from .operations import BY_ELEMENT, CONSTANTS, FORMS, SAMES, VIEWS, arguments, join, stem_of
from .values import DROPOUTS, MASK_DTYPES, Mask, Normalized, Parameter, Scores, Value, some_of, through

__all__ = ["Translator"]

_ACTIVATION_MODULES = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Mish, nn.Hardswish, nn.ReLU6,
                       nn.Softplus, nn.Hardtanh, nn.SELU, nn.CELU)


class Translator(Elementwise, Attention):
    """Runs the trace, and beside that makes layers of it."""

    def __init__(self, traced: fx.GraphModule, paths: Dict[str, str], inputs: Mapping[str, torch.Tensor],
                 tensors: Mapping[str, torch.Tensor]):
        super().__init__(traced, inputs, tensors)
        self._paths, self._unseen = paths, iter(inputs)
        self.path = ""

    def run_node(self, n: fx.Node) -> Any:
        self.path = self._paths.get(n.name, "")
        concrete = super().run_node(n)
        try:
            made = self._translate(n, concrete)
        except Refused as refused:
            raise ExportError(self.path, str(refused)) from None
        if made is not None:
            self.made[n] = made
        if isinstance(made, Value):
            self.block.note_place(made, self.path)
        return concrete

    def _translate(self, n: fx.Node, concrete: Any) -> Any:
        if n.op == "placeholder":
            name = next(self._unseen)  # torch.fx renames some
            return Mask(name) if concrete.dtype in MASK_DTYPES else Value(name)
        if n.op == "get_attr":
            return self._attribute(str(n.target), concrete)
        if n.op == "output":
            return self._output(n.args[0])
        args, kwargs = (fx.node.map_arg(a, lambda x: self.made.get(x, self.env.get(x))) for a in (n.args, n.kwargs))
        if n.op == "call_module":
            return self._module(self.fetch_attr(str(n.target)), inner_path(str(n.target)), args, kwargs, n)
        if not some_of(args) and not some_of(kwargs):
            return None
        name = n.target if n.op == "call_method" else getattr(n.target, "__name__", str(n.target))
        return self._function(str(name), n, list(args), dict(kwargs), concrete)

    def _attribute(self, target: str, concrete: Any) -> Any:
        if isinstance(concrete, nn.Parameter) and (concrete.requires_grad or concrete.numel() > 1):
            return Parameter(inner_path(target))
        return None  # a constant

    # ---- modules

    def _module(self, m: nn.Module, path: str, args: Sequence[Any], kwargs: Mapping[str, Any], n: fx.Node) -> Any:
        x = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(m, nn.Embedding) and isinstance(x, torch.Tensor):
            return self._embedded(m, path, x)
        if not some_of(args) and not some_of(kwargs):
            raise Refused(f"it is a {type(m).__name__} of constants or buffers: nothing of it depends on the inputs")
        if isinstance(m, DROPOUTS) or isinstance(m, nn.Identity):
            return x
        if isinstance(m, nn.MultiheadAttention):
            return self._attention_module(m, path, args, kwargs, n)
        if isinstance(m, nn.Linear) and isinstance(x, (Value, Mask)):
            return self._linear(x, f"{path}.weight" if path else "weight",
                                None if m.bias is None else f"{path}.bias" if path else "bias", m.out_features, path or "linear")
        if isinstance(m, nn.LayerNorm) and isinstance(x, Value):
            if len(m.normalized_shape) != 1:
                raise Refused(f"the server's norms are over the last dimension, not {list(m.normalized_shape)}")
            if m.weight is None or m.bias is None:
                raise Refused("the server's layer_norm has a weight and a bias")
            return self.block.add("layer_norm", path or "norm", [x], {"epsilon": m.eps},
                               {"weight": Source(join(path, "weight")), "bias": Source(join(path, "bias"))})
        if type(m).__name__ == "RMSNorm" and isinstance(x, Value):  # torch's, from 2.4 on
            if len(m.normalized_shape) != 1 or m.weight is None:  # type: ignore[arg-type]
                raise Refused("the server's rms_norm has a weight, and is over the last dimension")
            epsilon = torch.finfo(torch.float32).eps if m.eps is None else float(m.eps)  # type: ignore[arg-type]
            return self.block.add("rms_norm", path or "norm", [x], {"epsilon": epsilon}, {"weight": Source(join(path, "weight"))})
        if isinstance(m, _ACTIVATION_MODULES) and isinstance(x, Value):
            return through(x, lambda t: copy.deepcopy(m).double()(t.clone()))
        raise Refused(f"the server has no layer for a {type(m).__name__}")

    def _embedded(self, m: nn.Embedding, path: str, numbers: torch.Tensor) -> Parameter:
        flat = numbers.reshape(-1).tolist()
        if m.padding_idx is not None or m.max_norm is not None or m.scale_grad_by_freq or not flat \
                or flat != list(range(flat[0], flat[0] + len(flat))):
            raise Refused("of an Embedding the server has rows that lie behind each other (positions)")
        return Parameter(join(path, "weight"), flat[0], flat[-1] + 1)

    def _linear(self, x: Any, weight: str, bias: Optional[str], size: int, name: str) -> Value:
        if isinstance(x, Mask):
            raise Refused(f"a linear layer reads {x.name}, which is no float32 input")
        sources = {"weight": Source(weight), **({"bias": Source(bias)} if bias else {})}
        return self.block.add("linear", name, [x], {"size": size, **({} if bias else {"bias": False})}, sources)

    # ---- functions and methods

    def _function(self, name: str, n: fx.Node, args: List[Any], kwargs: Dict[str, Any], concrete: Any) -> Any:
        x = args[0] if args else None
        if name in CONSTANTS and (isinstance(x, torch.Tensor) or name.startswith("new_") or name.endswith("s_like") or name == "full_like"):
            return None  # a constant, whose numbers are what was computed
        if isinstance(x, Parameter) and name in VIEWS:
            if concrete.numel() != self.env[n.args[0]].numel():
                raise Refused(f"a part of the parameter {x.name} is read, or it is repeated: the server's layers have all of one")
            return x
        if name in ("getattr", "size", "dim", "ndimension", "numel", "get_device", "is_floating_point"):
            return None
        if name == "getitem" and type(x) is tuple:
            if x[args[1]] is None:
                raise Refused("the attention's weights are not among the server's results")
            return x[args[1]]
        if isinstance(x, Mask) and len(some_of(args)) == 1 and not self._constants(n):
            return self._mask_alone(name, x, args, concrete)
        if name == "linear" and isinstance(x, Value):
            weight, bias = (list(args) + [kwargs.get("weight"), kwargs.get("bias")])[1:3] if len(args) < 3 else args[1:3]
            if not isinstance(weight, Parameter) or not isinstance(bias, (Parameter, type(None))):
                raise Refused("a linear layer whose weight or bias is no parameter")
            return self._linear(x, weight.name, bias.name if bias else None, concrete.shape[-1], stem_of(weight.name, n.name))
        if name == "layer_norm" and isinstance(x, Value):
            return self._layer_norm_function(n, args, kwargs)
        if name == "rms_norm" and isinstance(x, Value):
            shape, weight, epsilon = arguments(("normalized_shape", "weight", "eps"), args[1:], kwargs)
            epsilon = torch.finfo(torch.float32).eps if epsilon is None else epsilon
            return self._scaled(n, Normalized(x, epsilon), weight)
        if name == "scaled_dot_product_attention":
            return self._sdpa(n, args, kwargs)
        if name in ("chunk", "split", "tensor_split", "split_with_sizes") and isinstance(x, Value):
            return self._parts(n, x, concrete)
        if name in ("getitem", "narrow") and isinstance(x, Value):
            return self._slice(n, name, x, concrete)
        if name in SAMES:
            return x
        if name in FORMS:
            return self._form(name, n, x, concrete)
        if name in ("matmul", "bmm") and len(args) == 2:
            return self._matmul(args[0], args[1], n)
        if name == "softmax" and isinstance(x, Scores):
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            if dim not in (-1, 3):
                raise Refused("the attention's softmax is over the keys, the last dimension")
            return x._replace(form="shares")
        if name in ("masked_fill", "masked_fill_") and isinstance(x, Scores):
            if not isinstance(args[1], Mask) or x.mask is not None or not float(args[2]) <= -1e4:
                raise Refused("the attention's scores are masked by something else than a bool input, with -inf")
            return x._replace(mask=args[1])
        if name == "mean" and isinstance(x, Value):
            return self._mean(n, x, args, kwargs)
        if name in BY_ELEMENT:
            return self._by_element(name, n, args, kwargs, concrete)
        raise Refused(f"the server has no layer for {name}()" + self._constants_said(n))

    def _output(self, value: Any) -> None:
        items: List[Tuple[str, Any]]
        if isinstance(value, dict):
            items = list(value.items())
        elif isinstance(value, (tuple, list)):
            items = [(f"output{i}", item) for i, item in enumerate(value)]
        else:
            items = [("output", value)]
        for name, node in items:
            self.block.add_output(name, self.made.get(node) if isinstance(node, fx.Node) else None)
