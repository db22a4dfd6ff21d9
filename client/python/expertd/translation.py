"""The operations of a trace, made into the server's layers.

Much of a module is no layer of its own: activations belong to the linear layer before them, a root mean square is
several operations, attention begins with splitting heads. So what an operation gives is kept as it is (the classes
below) until something reads it that settles what it is."""
from __future__ import annotations

import copy
import math
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple, Union

import torch
from torch import fx, nn

from .declaration import ACTIVATIONS, Source
from .tracing import ExportError, Refused, inner_path

__all__ = ["DROPOUTS", "MASK_DTYPES", "Translator"]

NAME_MAX = 47
MASK_DTYPES = {torch.int64: "int64", torch.bool: "bool"}


# ---- what operations give

Function = Callable[[torch.Tensor], torch.Tensor]


class _Value(NamedTuple):
    """An input's or a layer's result, seen through `function`, element by element (None: as it is), laid out anew, or a
    part of it."""
    name: str
    layout: str = "rows"  # [rows, ...]; "tokens first": 0 and 1 exchanged; "split": [rows, tokens, heads, d];
    #                       "heads": [rows, heads, tokens, d]; "turned": [rows, heads, d, tokens]
    heads: int = 0
    part: Optional[Tuple[int, int, int]] = None  # begin, end, and the size, of the last dimension
    function: Optional[Function] = None
    instead: Optional[Tuple[str, Any, Any]] = None  # the layer that it is of two operands, if it is no activation


class _Mask(NamedTuple):
    """An int64 or bool input."""
    name: str
    scale: float = 1.0
    inverted: bool = False


class _Mean(NamedTuple):
    """Of the squares of a value's last dimension, plus epsilon; then perhaps its root, or the inverse of that."""
    of: _Value
    epsilon: float = 0.0
    form: str = "mean"


class _Normalized(NamedTuple):
    of: _Value
    epsilon: float


class _Scores(NamedTuple):
    """Of attention, before ("scores") or behind the softmax ("shares")."""
    q: _Value
    k: _Value
    scale: float = 1.0
    mask: Optional[_Mask] = None
    form: str = "scores"


class _Parameter(NamedTuple):
    name: str


_SAMES = {"contiguous", "clone", "float", "to", "type", "type_as", "double", "dropout", "alpha_dropout", "feature_dropout",
          "dropout_", "feature_alpha_dropout", "alpha_dropout_"}
_FORMS = {"view", "reshape", "flatten", "unflatten", "transpose", "swapaxes", "permute", "movedim"}
_BY_ELEMENT = {"add", "sub", "mul", "div", "truediv", "true_divide", "neg", "pow", "square", "exp", "tanh", "sigmoid", "erf",
               "relu", "relu_", "gelu", "silu", "silu_", "sqrt", "abs", "abs_", "softplus", "clamp", "clamp_", "hardtanh", "elu",
               "leaky_relu", "mish", "hardswish", "relu6", "iadd", "imul", "isub", "itruediv", "add_", "mul_", "rsub", "multiply",
               "divide", "subtract", "reciprocal", "rsqrt", "logsigmoid", "softsign", "selu", "celu", "hardsigmoid", "tanh_",
               "sigmoid_", "sub_", "div_", "log", "sin", "cos"}
_SUMS, _PRODUCTS = {"add", "iadd", "add_"}, {"mul", "imul", "mul_", "multiply"}
_QUOTIENTS = {"div", "truediv", "true_divide", "divide", "itruediv", "div_"}
DROPOUTS = (nn.Dropout, nn.AlphaDropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
_ACTIVATION_MODULES = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Mish, nn.Hardswish, nn.ReLU6,
                       nn.Softplus, nn.Hardtanh, nn.SELU, nn.CELU)
_GRID = torch.linspace(-9, 9, 181, dtype=torch.float64)


class Translator(fx.Interpreter):
    """Runs the trace with the example inputs, for the sizes and numbers in it, and beside that makes layers of it."""

    def __init__(self, traced: fx.GraphModule, paths: Dict[str, str], inputs: Mapping[str, torch.Tensor]):
        super().__init__(traced, garbage_collect_values=False)
        self.paths, self.inputs, self.unseen = paths, inputs, iter(inputs)
        self.made: Dict[fx.Node, Any] = {}  # what operations gave; nothing: numbers, sizes
        self.layers: Dict[str, Dict[str, Any]] = {}
        self.raw: Set[str] = set()  # values that are read as they are
        self.scaled: Dict[str, float] = {}  # masks' results that are read with a factor
        self.instead: Dict[int, str] = {}  # what became of functions that are no activations
        self.sources: Dict[str, Source] = {}
        self.activated: Dict[Tuple[str, str], str] = {}  # activations that are layers of their own
        self.split: Dict[Tuple[str, int, int], str] = {}  # parts of linear layers' results, which are layers of their own
        self.outputs: List[Tuple[str, str]] = []
        self.path = ""

    def run_node(self, n: fx.Node) -> Any:
        self.path = self.paths.get(n.name, "")
        concrete = super().run_node(n)
        try:
            made = self._translate(n, concrete)
        except Refused as refused:
            raise ExportError(self.path, str(refused)) from None
        if made is not None:
            self.made[n] = made
        return concrete

    def _translate(self, n: fx.Node, concrete: Any) -> Any:
        if n.op == "placeholder":
            name = next(self.unseen)  # torch.fx renames some
            return _Mask(name) if concrete.dtype in MASK_DTYPES else _Value(name)
        if n.op == "get_attr":
            return self._attribute(str(n.target), concrete)
        if n.op == "output":
            return self._output(n.args[0])
        args, kwargs = (fx.node.map_arg(a, lambda x: self.made.get(x, self.env.get(x))) for a in (n.args, n.kwargs))
        if n.op == "call_module":
            return self._module(self.fetch_attr(str(n.target)), inner_path(str(n.target)), args, kwargs, n)
        if not _some(args) and not _some(kwargs):
            return None
        name = n.target if n.op == "call_method" else getattr(n.target, "__name__", str(n.target))
        return self._function(str(name), n, list(args), dict(kwargs), concrete)

    def _attribute(self, target: str, concrete: Any) -> Any:
        if isinstance(concrete, nn.Parameter):
            return _Parameter(inner_path(target))
        if isinstance(concrete, torch.Tensor) and concrete.numel() > 1:
            raise Refused(f"it computes with the buffer {inner_path(target)}, which the server has no layer for")
        return None

    def _shape(self, node: Any) -> Tuple[int, ...]:
        return tuple(self.env[node].shape) if isinstance(node, fx.Node) else ()

    # ---- modules

    def _module(self, m: nn.Module, path: str, args: Sequence[Any], kwargs: Mapping[str, Any], n: fx.Node) -> Any:
        x = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(m, DROPOUTS) or isinstance(m, nn.Identity):
            return x
        if isinstance(m, nn.MultiheadAttention):
            return self._attention_module(m, path, args, kwargs, n)
        if isinstance(m, nn.Linear) and isinstance(x, (_Value, _Mask)):
            return self._linear(x, f"{path}.weight" if path else "weight",
                                None if m.bias is None else f"{path}.bias" if path else "bias", m.out_features, path or "linear")
        if isinstance(m, nn.LayerNorm) and isinstance(x, _Value):
            if len(m.normalized_shape) != 1:
                raise Refused(f"the server's norms are over the last dimension, not {list(m.normalized_shape)}")
            if m.weight is None or m.bias is None:
                raise Refused("the server's layer_norm has a weight and a bias")
            return self._layer("layer_norm", path or "norm", [x], {"epsilon": m.eps},
                               {"weight": Source(_join(path, "weight")), "bias": Source(_join(path, "bias"))})
        if type(m).__name__ == "RMSNorm" and isinstance(x, _Value):  # torch's, from 2.4 on
            if len(m.normalized_shape) != 1 or m.weight is None:  # type: ignore[arg-type]
                raise Refused("the server's rms_norm has a weight, and is over the last dimension")
            epsilon = torch.finfo(torch.float32).eps if m.eps is None else float(m.eps)  # type: ignore[arg-type]
            return self._layer("rms_norm", path or "norm", [x], {"epsilon": epsilon}, {"weight": Source(_join(path, "weight"))})
        if isinstance(m, _ACTIVATION_MODULES) and isinstance(x, _Value):
            return _through(x, lambda t: copy.deepcopy(m).double()(t.clone()))
        raise Refused(f"the server has no layer for a {type(m).__name__}")

    def _linear(self, x: Any, weight: str, bias: Optional[str], size: int, name: str) -> _Value:
        if isinstance(x, _Mask):
            raise Refused(f"a linear layer reads {x.name}, which is no float32 input")
        sources = {"weight": Source(weight), **({"bias": Source(bias)} if bias else {})}
        return self._layer("linear", name, [x], {"size": size, **({} if bias else {"bias": False})}, sources)

    def _attention_module(self, m: nn.MultiheadAttention, path: str, args: Sequence[Any], kwargs: Mapping[str, Any],
                          n: fx.Node) -> Any:
        names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")
        given = {**dict(zip(names, args)), **kwargs}
        if given.get("attn_mask") is not None or given.get("is_causal"):
            raise Refused("the server's attention takes masks of keys (key_padding_mask) alone")
        if m.bias_k is not None or m.add_zero_attn:
            raise Refused("the server's attention has no added keys (add_bias_kv, add_zero_attn)")
        q, k, v = (given[name] for name in names[:3])
        layout = "rows" if m.batch_first else "tokens first"
        for x in (q, k, v):
            if not isinstance(x, _Value) or x.layout != layout:
                raise Refused("the attention's inputs are not [rows, tokens, size]" if m.batch_first else
                               "with batch_first=False the attention's inputs are [tokens, rows, size]: x.transpose(0, 1)")
        bias = m.in_proj_bias is not None
        inner = {"init": "xavier", **_bias_options(bias)}
        size = m.embed_dim
        if q == k == v and m.in_proj_weight is not None:
            sources = {"weight": Source(_join(path, "in_proj_weight"))}
            if bias:
                sources["bias"] = Source(_join(path, "in_proj_bias"))
            operands = [self._layer("linear", _join(path, "in_proj"), [q], {"size": 3 * size, **inner}, sources)]
        else:
            operands = []
            for i, (letter, x) in enumerate(zip("qkv", (q, k, v))):
                own = getattr(m, f"{letter}_proj_weight")
                sources = {"weight": Source(_join(path, "in_proj_weight"), i * size, (i + 1) * size) if own is None else
                           Source(_join(path, f"{letter}_proj_weight"))}
                if bias:
                    sources["bias"] = Source(_join(path, "in_proj_bias"), i * size, (i + 1) * size)
                operands.append(self._layer("linear", _join(path, f"{letter}_proj"), [x], {"size": size, **inner}, sources))
        attended = self._attention(path or "attention", operands, m.num_heads, given.get("key_padding_mask"))
        out = self._layer("linear", _join(path, "out_proj"), [attended],
                          {"size": size, **_bias_options(m.out_proj.bias is not None)},
                          {"weight": Source(_join(path, "out_proj.weight")),
                           **({"bias": Source(_join(path, "out_proj.bias"))} if m.out_proj.bias is not None else {})})
        return (out._replace(layout=layout), None)

    def _attention(self, name: str, operands: List[_Value], heads: int, mask: Any) -> _Value:
        options: Dict[str, Any] = {"heads": heads}
        if mask is not None:
            if not isinstance(mask, _Mask) or mask.inverted or self.inputs[mask.name].dtype != torch.bool:
                raise Refused("the mask of the attention must be a bool input, true for a key to be left out")
            options["mask"] = mask.name
        return self._layer("attention", name, operands, options, {})

    # ---- functions and methods

    def _function(self, name: str, n: fx.Node, args: List[Any], kwargs: Dict[str, Any], concrete: Any) -> Any:
        x = args[0] if args else None
        if name in ("getattr", "size", "dim", "ndimension", "numel", "get_device", "is_floating_point"):
            return None
        if name == "getitem" and type(x) is tuple:
            if x[args[1]] is None:
                raise Refused("the attention's weights are not among the server's results")
            return x[args[1]]
        if isinstance(x, _Mask) and len(_some(args)) == 1:
            return self._mask_alone(name, x, args, concrete)
        if name == "linear" and isinstance(x, _Value):
            weight, bias = (list(args) + [kwargs.get("weight"), kwargs.get("bias")])[1:3] if len(args) < 3 else args[1:3]
            if not isinstance(weight, _Parameter) or not isinstance(bias, (_Parameter, type(None))):
                raise Refused("a linear layer whose weight or bias is no parameter")
            return self._linear(x, weight.name, bias.name if bias else None, concrete.shape[-1], _stem(weight.name, n.name))
        if name == "layer_norm" and isinstance(x, _Value):
            return self._layer_norm_function(n, args, kwargs)
        if name == "rms_norm" and isinstance(x, _Value):
            shape, weight, epsilon = _arguments(("normalized_shape", "weight", "eps"), args[1:], kwargs)
            epsilon = torch.finfo(torch.float32).eps if epsilon is None else epsilon
            return self._scaled(n, _Normalized(x, epsilon), weight)
        if name == "scaled_dot_product_attention":
            return self._sdpa(n, args, kwargs)
        if name in ("chunk", "split", "tensor_split", "split_with_sizes") and isinstance(x, _Value):
            return self._parts(n, x, concrete)
        if name in ("getitem", "narrow") and isinstance(x, _Value):
            return self._slice(n, name, x, concrete)
        if name in _SAMES:
            return x
        if name in _FORMS:
            return self._form(name, n, x, concrete)
        if name in ("matmul", "bmm") and len(args) == 2:
            return self._matmul(args[0], args[1], n)
        if name == "softmax" and isinstance(x, _Scores):
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            if dim not in (-1, 3):
                raise Refused("the attention's softmax is over the keys, the last dimension")
            return x._replace(form="shares")
        if name in ("masked_fill", "masked_fill_") and isinstance(x, _Scores):
            if not isinstance(args[1], _Mask) or x.mask is not None or not float(args[2]) <= -1e4:
                raise Refused("the attention's scores are masked by something else than a bool input, with -inf")
            return x._replace(mask=args[1])
        if name == "mean" and isinstance(x, _Value):
            return self._mean(n, x, args, kwargs)
        if name in _BY_ELEMENT:
            return self._by_element(name, n, args, kwargs, concrete)
        raise Refused(f"the server has no layer for {name}()")

    def _mask_alone(self, name: str, x: _Mask, args: List[Any], concrete: Any) -> Any:
        """Casts, negation, dimensions for broadcasting, and factors."""
        if name in _SAMES or name in ("bool", "unsqueeze", "view", "reshape", "getitem", "long", "int"):
            return x
        if name in ("invert", "logical_not", "bitwise_not"):
            return x._replace(inverted=not x.inverted)
        others = [a for a in args if not isinstance(a, _Mask)]
        if name in _PRODUCTS | _QUOTIENTS and len(others) == 1 and (args[0] == x or name in _PRODUCTS):
            return x._replace(scale=x.scale * (float(others[0]) if name in _PRODUCTS else 1 / float(others[0])))
        raise Refused(f"the server does not compute {name}() of the input {x.name}, which is no float32")

    def _layer_norm_function(self, n: fx.Node, args: List[Any], kwargs: Dict[str, Any]) -> _Value:
        shape, weight, bias, epsilon = _arguments(("normalized_shape", "weight", "bias", "eps"), args[1:], kwargs)
        if len(shape) != 1 or not isinstance(weight, _Parameter) or not isinstance(bias, _Parameter):
            raise Refused("the server's layer_norm has a weight and a bias, and is over the last dimension")
        return self._layer("layer_norm", _stem(weight.name, n.name), [args[0]], {"epsilon": 1e-5 if epsilon is None else epsilon},
                           {"weight": Source(weight.name), "bias": Source(bias.name)})

    def _mean(self, n: fx.Node, x: _Value, args: List[Any], kwargs: Dict[str, Any]) -> _Mean:
        dim, keep = _arguments(("dim", "keepdim"), args[1:], kwargs)
        dims = list(dim) if isinstance(dim, (list, tuple)) else [dim]
        if x.function is None or dims not in ([-1], [len(self._shape(n.args[0])) - 1]) or not keep \
                or not _agree(x.function, lambda t: t * t):
            raise Refused("of means the server has that of squares over the last dimension, in rms_norm")
        return _Mean(x._replace(function=None, instead=None))

    def _by_element(self, name: str, n: fx.Node, args: List[Any], kwargs: Dict[str, Any], concrete: Any) -> Any:
        some = _some(args) + _some(kwargs)
        first = some[0]
        if isinstance(first, (_Mean, _Scores)) and len(some) == 1:
            return self._with_number(name, first, args)
        kinds = {type(one) for one in some}
        if _Mean in kinds and name in _PRODUCTS | _QUOTIENTS and len(some) == 2:
            mean = next(one for one in some if isinstance(one, _Mean))
            other = some[1] if some[0] is mean else some[0]
            wanted = "inverse root" if name in _PRODUCTS else "root"
            if other != mean.of or mean.form != wanted or (name in _QUOTIENTS and some[1] is not mean):
                raise Refused("a root mean square is the server's in rms_norm alone: x / root(mean(x²) + epsilon)")
            return _Normalized(mean.of, mean.epsilon)
        if _Normalized in kinds and _Parameter in kinds and name in _PRODUCTS:
            return self._scaled(n, *sorted(some, key=lambda one: isinstance(one, _Parameter)))
        if kinds == {_Value, _Mask} and name in _PRODUCTS | _QUOTIENTS and len(some) == 2:
            return self._masked(name, n, some)
        if kinds != {_Value}:
            what = next((one for one in some if not isinstance(one, _Value)), None)
            raise Refused(f"the server has no layer for {name}() of "
                           + (f"the parameter {what.name}" if isinstance(what, _Parameter) else "these"))
        if len({one.name for one in some}) == 1 and len({(one.layout, one.part) for one in some}) == 1:
            function = _composed(n, self.made, self.env)
            instead = ("add" if name in _SUMS else "multiply", *some) if len(some) == 2 and name in _SUMS | _PRODUCTS else None
            return some[0]._replace(function=function, instead=instead)
        if len(some) != 2 or name not in _SUMS | _PRODUCTS or kwargs.get("alpha", 1) != 1:
            raise Refused(f"the server has no layer for {name}() of two values")
        if self._shape(n.args[0]) != self._shape(n.args[1]):
            raise Refused(f"{name}() of the shapes {list(self._shape(n.args[0]))} and {list(self._shape(n.args[1]))}: the server's "
                           "layers read values of one shape")
        return self._layer("add" if name in _SUMS else "multiply", n.name, some, {}, {})

    def _with_number(self, name: str, x: Union[_Mean, _Scores], args: List[Any]) -> Any:
        numbers = [float(a) for a in args if isinstance(a, (int, float)) or isinstance(a, torch.Tensor) and a.numel() == 1]
        if isinstance(x, _Scores) and x.form == "scores" and len(numbers) == 1 and name in _PRODUCTS | _QUOTIENTS:
            return x._replace(scale=x.scale * (numbers[0] if name in _PRODUCTS else 1 / numbers[0]))
        if isinstance(x, _Mean):
            if x.form == "mean" and name in _SUMS and len(numbers) == 1:
                return x._replace(epsilon=x.epsilon + numbers[0])
            forms = {("mean", "sqrt"): "root", ("mean", "rsqrt"): "inverse root", ("root", "reciprocal"): "inverse root"}
            if name == "pow" and len(numbers) == 1 and abs(numbers[0]) == 0.5:
                name = "sqrt" if numbers[0] > 0 else "rsqrt"
            if (x.form, name) in forms:
                return x._replace(form=forms[x.form, name])
        raise Refused(f"the server has no layer for {name}() of this")

    def _scaled(self, n: fx.Node, x: Any, weight: Any) -> _Value:
        if not isinstance(weight, _Parameter):
            raise Refused("the server's rms_norm has a weight")
        return self._layer("rms_norm", _stem(weight.name, n.name), [x.of], {"epsilon": x.epsilon}, {"weight": Source(weight.name)})

    def _masked(self, name: str, n: fx.Node, some: List[Any]) -> _Value:
        x, mask = sorted(some, key=lambda one: isinstance(one, _Mask))
        if mask.inverted or name in _QUOTIENTS:
            raise Refused(f"the server multiplies with {mask.name} as it is")
        scale = mask.scale
        if x.function is not None:
            factor = _factor(x.function)
            if factor is not None:
                x, scale = x._replace(function=None, instead=None), scale * factor
        return self._layer("mask", n.name, [x], {"scale": scale}, {}, mask.name)

    # ---- heads

    def _parts(self, n: fx.Node, x: _Value, concrete: Any) -> Any:
        begin, parts = 0, []
        for part in concrete:
            parts.append(self._part(n, x, begin, part))
            begin += part.shape[-1]
        return tuple(parts)

    def _slice(self, n: fx.Node, name: str, x: _Value, concrete: Any) -> _Value:
        """y[..., begin:end], and what else takes columns that lie behind each other."""
        size = self._shape(n.args[0])[-1]
        marked = torch.arange(size).expand(self._shape(n.args[0]))
        args, kwargs = fx.node.map_arg((n.args[1:], {k: v for k, v in n.kwargs.items() if k != "input"}), lambda x: self.env[x])
        columns = marked[args[0]] if name == "getitem" else torch.narrow(marked, *args, **kwargs)
        columns = columns.reshape(-1, columns.shape[-1])[0].tolist() if columns.dim() and columns.numel() else []
        if not columns or columns != list(range(columns[0], columns[-1] + 1)) or columns[-1] - columns[0] + 1 != concrete.shape[-1]:
            raise Refused("of slices the server has those of the last dimension that leave out nothing in between")
        return self._part(n, x, columns[0], concrete)

    def _part(self, n: fx.Node, x: _Value, begin: int, concrete: Any) -> _Value:
        before = self._shape(n.args[0])
        if concrete.shape[:-1] != before[:-1] or x.layout not in ("rows", "tokens first"):
            raise Refused("of parts of values the server has those of the last dimension")
        end, size = begin + concrete.shape[-1], before[-1]
        if x.part is not None:
            begin, end, size = begin + x.part[0], end + x.part[0], x.part[2]
        return x._replace(part=None if end - begin == size else (begin, end, size))

    def _form(self, name: str, n: fx.Node, x: Any, concrete: Any) -> Any:
        before, after = self._shape(n.args[0]), tuple(concrete.shape)
        if not isinstance(x, (_Value, _Scores, _Normalized)):
            raise Refused(f"the server has no layer for {name}() of this")
        moves = name in ("transpose", "swapaxes", "permute", "movedim")
        if not moves and before == after:
            return x
        if isinstance(x, _Value):
            order = self._order(n, len(before)) if moves else None
            steps = {("rows", (1, 0, 2)): "tokens first", ("tokens first", (1, 0, 2)): "rows", ("split", (0, 2, 1, 3)): "heads",
                     ("heads", (0, 2, 1, 3)): "split", ("heads", (0, 1, 3, 2)): "turned", ("split", (0, 2, 3, 1)): "turned",
                     ("turned", (0, 1, 3, 2)): "heads"}
            if order is not None and order == tuple(range(len(before))):
                return x
            if order is not None and (x.layout, order) in steps:
                return x._replace(layout=steps[x.layout, order])
            if not moves and x.layout == "rows" and len(after) == 4 and after[:2] == before[:2] and len(before) == 3:
                return x._replace(layout="split", heads=after[2])
            if not moves and x.layout == "split" and len(after) == 3 and after[:2] == before[:2]:
                return x._replace(layout="rows", heads=0)
        raise Refused(f"{name}() from {list(before)} to {list(after)}: the server's layers keep a row's shape, but for the heads of "
                       "attention")

    def _order(self, n: fx.Node, dims: int) -> Tuple[int, ...]:
        """Which dimension comes to each place."""
        marked = torch.empty([i + 2 for i in range(dims)])
        args, given = fx.node.map_arg((n.args[1:], n.kwargs), lambda x: self.env[x])
        kwargs = {key: value for key, value in given.items() if key != "input"}
        target: Any = getattr(marked, n.target) if n.op == "call_method" else lambda *a, **k: n.target(marked, *a, **k)  # type: ignore[operator,arg-type]
        return tuple(size - 2 for size in target(*args, **kwargs).shape)

    def _matmul(self, a: Any, b: Any, n: fx.Node) -> Any:
        if isinstance(a, _Value) and isinstance(b, _Value) and a.layout == "heads" and b.layout == "turned":
            factor_a, a = _without_factor(a)
            factor_b, b = _without_factor(b)
            return _Scores(a, b._replace(layout="heads"), factor_a * factor_b)
        if isinstance(a, _Scores) and a.form == "shares" and isinstance(b, _Value) and b.layout == "heads":
            return self._heads(n, a.q, a.k, b, a.scale, a.mask)
        raise Refused("of products the server has those with weights (linear), of two values element by element (multiply), and "
                       "those in attention")

    def _sdpa(self, n: fx.Node, args: List[Any], kwargs: Dict[str, Any]) -> _Value:
        q, k, v, mask, _, causal, scale = _arguments(
            ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale"), args, kwargs)
        if causal:
            raise Refused("the server's attention is not causal")
        if not all(isinstance(x, _Value) and x.layout == "heads" for x in (q, k, v)):
            raise Refused("the attention's inputs are not [rows, heads, tokens, size of a head]")
        if mask is not None:
            if not isinstance(mask, _Mask):
                raise Refused("the mask of the attention must be a bool input")
            mask = mask._replace(inverted=not mask.inverted)  # there true is for a key that takes part
        return self._heads(n, q, k, v, 1 / math.sqrt(self._shape(n.args[0])[-1]) if scale is None else scale, mask)

    def _heads(self, n: fx.Node, q: _Value, k: _Value, v: _Value, scale: float, mask: Optional[_Mask]) -> _Value:
        width = self.env[n.args[1]].shape[-1] if isinstance(n.args[1], fx.Node) else 0
        if len({x.heads for x in (q, k, v)}) != 1 or abs(scale * math.sqrt(width) - 1) > 1e-5:
            raise Refused("the server's attention has as many heads for queries, keys and values, and divides the scores by "
                           "the root of a head's size")
        third = width * q.heads
        parts = [x.part for x in (q, k, v)]
        if parts == [(i * third, (i + 1) * third, 3 * third) for i in range(3)] and q.name == k.name == v.name:
            operands = [q._replace(layout="rows", heads=0, part=None)]
        else:
            operands = [x._replace(layout="rows", heads=0) for x in (q, k, v)]
        return self._attention(n.name, operands, q.heads, mask)._replace(layout="heads", heads=q.heads)

    # ---- layers

    def _layer(self, kind: str, name: str, operands: List[_Value], options: Dict[str, Any], sources: Dict[str, Source],
               mask: Optional[str] = None) -> _Value:
        """A new layer, whose result this is."""
        layouts = {x.layout for x in operands}
        if len(layouts) != 1 or not layouts <= {"rows", "tokens first"}:
            raise Refused("a layer reads values whose heads are split, or of which one is turned and another not")
        names = [self._settle(x) for x in operands] + ([mask] if mask is not None else [])
        name = self._name(name)
        layer: Dict[str, Any] = {"name": name, "layer": kind}
        if len(names) == 1:
            layer["input"] = names[0]
        else:
            layer["inputs"] = names
        layer.update(options)
        for what, source in sources.items():
            if any(other.name == source.name and (other.begin, other.end) == (source.begin, source.end)
                   for other in self.sources.values()):
                raise Refused(f"{source.name} is used twice: each of the server's layers has weights of its own")
            parameter = f"{name}.{what}"
            if kind == "linear" and source.end is None and source.name != parameter and _is_name(source.name):
                parameter = layer[f"{what}_name"] = source.name
            self.sources[parameter] = source
        self.layers[name] = layer
        return _Value(name, layout=layouts.pop())

    def _name(self, wanted: str) -> str:
        stem = wanted if _is_name(wanted) else f"layer{len(self.layers)}"
        name, number = stem, 1
        while name in self.layers or name in self.inputs:
            number += 1
            name = f"{stem}_{number}"
        return name

    def _settle(self, x: _Value) -> str:
        """What reads x reads the layer of that name: an activation becomes its layer's."""
        if x.part is not None:
            x = x._replace(name=self._split(x.name, *x.part[:2]), part=None)
        layer = self.layers.get(x.name)
        activation: Optional[str] = "none"
        if x.function is not None:
            activation = next((name for name, function in ACTIVATIONS.items() if _agree(x.function, function)), "")
            activation = activation or None
        if activation is None and layer is not None and layer["layer"] == "mask" and x.name not in self.raw:
            factor = _factor(x.function)
            if factor is not None and self.scaled.get(x.name, factor) == factor:
                if x.name not in self.scaled:
                    self.scaled[x.name] = factor
                    layer["scale"] *= factor
                return x.name
        if activation is None and x.instead is not None:
            if id(x.function) not in self.instead:
                kind, first, second = x.instead
                operands = [first._replace(layout="rows"), second._replace(layout="rows")]
                self.instead[id(x.function)] = self._layer(kind, kind, operands, {}, {}).name
            return self.instead[id(x.function)]
        if activation is None:
            raise Refused("a function of single numbers that is none of the server's activations: relu, gelu, gelu_erf, silu")
        if activation == "none":
            if layer is not None and layer["layer"] == "linear" and "activation" in layer:
                self._take_apart(x.name)
            if x.name in self.scaled:
                raise Refused(f"{x.name} is read with a factor and without: the server's mask has one scale")
            self.raw.add(x.name)
        elif layer is None or layer["layer"] != "linear" or x.name in self.raw or layer.get("activation", activation) != activation:
            return self._activated(x, activation)
        else:
            layer["activation"] = activation
        return x.name

    def _split(self, name: str, begin: int, end: int) -> str:
        """A part of a linear layer's result is what a layer with those rows of its weights makes of the same."""
        found = self.split.get((name, begin, end))
        if found is not None:
            return found
        whole = self.layers.get(name)
        if whole is None or whole["layer"] != "linear":
            raise Refused("a part of " + ("an input" if whole is None else f"the result of a layer of kind {whole['layer']}")
                          + " is read: the server has parts of linear layers' results, and queries, keys and values side by side")
        made = self.split[name, begin, end] = self._name(f"{name}.{len(self.split)}" if len(name) < NAME_MAX - 3 else "part")
        self.layers[made] = {"name": made, "layer": "linear", "input": whole["input"], "size": end - begin,
                             **{option: value for option, value in whole.items() if option in ("bias", "init", "bias_init")}}
        for what in ("weight", "bias"):
            source = self.sources.get(whole.get(f"{what}_name", f"{name}.{what}"))
            if source is not None:
                self.sources[f"{made}.{what}"] = Source(source.name, source.begin + begin, source.begin + end)
        return made

    def _take_apart(self, name: str) -> None:
        """Of a linear layer that is read before its activation, too, all that have read it so far read a layer of its own."""
        activation = self.layers[name].pop("activation")
        apart = self.activated[name, activation] = self._name(f"{activation}{len(self.layers)}")
        layers: Dict[str, Dict[str, Any]] = {}
        for other, layer in self.layers.items():
            if layer.get("input") == name:
                layer["input"] = apart
            if name in layer.get("inputs", ()):
                layer["inputs"] = [apart if operand == name else operand for operand in layer["inputs"]]
            layers[other] = layer
            if other == name:
                layers[apart] = {"name": apart, "layer": "activation", "input": name, "activation": activation}
        self.layers = layers
        self.outputs = [(output, apart if value == name else value) for output, value in self.outputs]

    def _activated(self, x: _Value, activation: str) -> str:
        """The activation as a layer of its own, one for all that read it."""
        found = self.activated.get((x.name, activation))
        if found is None:
            read = self._settle(x._replace(function=None, instead=None))
            found = self.activated[x.name, activation] = self._name(f"{activation}{len(self.layers)}")
            self.layers[found] = {"name": found, "layer": "activation", "input": read, "activation": activation}
        return found

    def _output(self, value: Any) -> None:
        items: List[Tuple[str, Any]]
        if isinstance(value, dict):
            items = list(value.items())
        elif isinstance(value, (tuple, list)):
            items = [(f"output{i}", item) for i, item in enumerate(value)]
        else:
            items = [("output", value)]
        for name, node in items:
            made = self.made.get(node) if isinstance(node, fx.Node) else None
            if not isinstance(made, _Value) or made.layout != "rows":
                raise ExportError("", f"{name} is no layer's result, [rows, ...]")
            try:
                settled = self._settle(made)
            except Refused as refused:
                raise ExportError("", f"{name}: {refused}") from None
            if settled not in self.layers:
                raise ExportError("", f"{name} is the input {settled} itself")
            if settled in [other for _, other in self.outputs]:
                raise ExportError("", f"{name} is another output's value")
            self.outputs.append((name, settled))


def _bias_options(there: bool) -> Dict[str, Any]:
    """What nn.MultiheadAttention's linear layers begin with."""
    return {"bias_init": "zero"} if there else {"bias": False}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _stem(parameter: str, otherwise: str) -> str:
    return parameter.rpartition(".")[0] if parameter.endswith(".weight") else otherwise


def _is_name(name: str) -> bool:
    return len(name) <= NAME_MAX and bool(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", name))


def _some(args: Any) -> List[Any]:
    """What is not a plain number, text or size in arguments."""
    found: List[Any] = []
    kinds = (_Value, _Mask, _Mean, _Normalized, _Scores, _Parameter)
    for one in args.values() if isinstance(args, dict) else args:
        if isinstance(one, kinds):
            found.append(one)
        elif isinstance(one, (tuple, list)):
            found += _some(one)
    return found


def _arguments(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> List[Any]:
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]


def _agree(a: Function, b: Function) -> bool:
    """Whether two functions of single numbers are one. Theirs may have 0.7978845608 for the root of 2/pi."""
    try:
        return bool(torch.allclose(a(_GRID), b(_GRID), rtol=1e-6, atol=1e-7))
    except (RuntimeError, TypeError):
        return False


def _factor(function: Optional[Function]) -> Optional[float]:
    """c of a function that multiplies with c."""
    if function is None:
        return 1.0
    factor = float(function(torch.ones(1, dtype=torch.float64)))
    return factor if _agree(function, lambda t: t * factor) else None


def _without_factor(x: _Value) -> Tuple[float, _Value]:
    factor = _factor(x.function)
    return (1.0, x) if factor is None else (factor, x._replace(function=None, instead=None))


def _through(x: _Value, function: Function) -> _Value:
    def both(t: torch.Tensor) -> torch.Tensor:
        return function(t if x.function is None else x.function(t))
    return x._replace(function=both, instead=None)


def _composed(n: fx.Node, made: Mapping[fx.Node, Any], env: Mapping[fx.Node, Any]) -> Function:
    """The operation as a function of the value that all its operands are functions of."""
    operands = {node: made[node].function for node in n.all_input_nodes if isinstance(made.get(node), _Value)}
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
