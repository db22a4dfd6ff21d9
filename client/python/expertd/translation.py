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
    #                       "heads": [rows, heads, tokens, d]; "turned": [rows, heads, d, tokens]; "turned rows": [rows, ..., n, m]
    heads: int = 0
    part: Optional[Tuple[int, int, int]] = None  # begin, end, and the size, of the last dimension
    function: Optional[Function] = None
    instead: Optional[Tuple[str, Any, Any]] = None  # the layer that it is of two operands, if it is no activation
    cuts: Tuple[Tuple[Any, Function], ...] = ()  # values on the way here, and what of them makes this; the nearest first


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
    """Rows begin to end of one; end None: all."""
    name: str
    begin: int = 0
    end: Optional[int] = None


class _Line(NamedTuple):
    """weight * x + bias, each a number, or one for each of a tensor's."""
    weight: Union[float, torch.Tensor]
    bias: Union[float, torch.Tensor]


_SAMES = {"contiguous", "clone", "float", "to", "type", "type_as", "double", "dropout", "alpha_dropout", "feature_dropout",
          "dropout_", "feature_alpha_dropout", "alpha_dropout_"}
_FORMS = {"view", "reshape", "flatten", "unflatten", "transpose", "swapaxes", "permute", "movedim"}
_BY_ELEMENT = {"add", "sub", "mul", "div", "truediv", "true_divide", "neg", "pow", "square", "exp", "tanh", "sigmoid", "erf",
               "relu", "relu_", "gelu", "silu", "silu_", "sqrt", "abs", "abs_", "softplus", "clamp", "clamp_", "hardtanh", "elu",
               "leaky_relu", "mish", "hardswish", "relu6", "iadd", "imul", "isub", "itruediv", "add_", "mul_", "rsub", "multiply",
               "divide", "subtract", "reciprocal", "rsqrt", "logsigmoid", "softsign", "selu", "celu", "hardsigmoid", "tanh_",
               "sigmoid_", "sub_", "div_", "log", "sin", "cos"}
_CONSTANTS = {"expand", "expand_as", "ones_like", "zeros_like", "full_like", "new_zeros", "new_ones", "new_full", "new_tensor",
              "new_empty", "to", "type_as", "view_as", "reshape_as"}  # of which a value has the shape or the type alone
_VIEWS = {"getitem", "view", "reshape", "unsqueeze", "squeeze", "expand", "expand_as", "flatten", "to", "type_as", "float", "contiguous"}
_SUMS, _PRODUCTS = {"add", "iadd", "add_"}, {"mul", "imul", "mul_", "multiply"}
_DIFFERENCES = {"sub", "subtract", "isub", "sub_"}
_QUOTIENTS = {"div", "truediv", "true_divide", "divide", "itruediv", "div_"}
DROPOUTS = (nn.Dropout, nn.AlphaDropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
_ACTIVATION_MODULES = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Mish, nn.Hardswish, nn.ReLU6,
                       nn.Softplus, nn.Hardtanh, nn.SELU, nn.CELU)
_GRID = torch.linspace(-9, 9, 181, dtype=torch.float64)
_FAR = 40.0  # where an activation is a line


class Translator(fx.Interpreter):
    """Runs the trace with the example inputs, for the sizes and numbers in it, and beside that makes layers of it."""

    def __init__(self, traced: fx.GraphModule, paths: Dict[str, str], inputs: Mapping[str, torch.Tensor],
                 tensors: Mapping[str, torch.Tensor]):
        super().__init__(traced, garbage_collect_values=False)
        self.paths, self.inputs, self.unseen = paths, inputs, iter(inputs)
        self.tensors = tensors  # of the module, by name
        self.computed: Dict[str, torch.Tensor] = {}  # constants that are none of them, by the block's names
        self.settled: Dict[int, Tuple[Function, str]] = {}  # what became of functions, which are kept so that no other is at its place
        self.made: Dict[fx.Node, Any] = {}  # what operations gave; nothing: numbers, sizes
        self.layers: Dict[str, Dict[str, Any]] = {}
        self.raw: Set[str] = set()  # values that are read as they are
        self.scaled: Dict[str, float] = {}  # masks' results that are read with a factor
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
        if isinstance(concrete, nn.Parameter) and (concrete.requires_grad or concrete.numel() > 1):
            return _Parameter(inner_path(target))
        return None  # a constant

    def _shape(self, node: Any) -> Tuple[int, ...]:
        return tuple(self.env[node].shape) if isinstance(node, fx.Node) else ()

    # ---- modules

    def _module(self, m: nn.Module, path: str, args: Sequence[Any], kwargs: Mapping[str, Any], n: fx.Node) -> Any:
        x = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(m, nn.Embedding) and isinstance(x, torch.Tensor):
            return self._embedded(m, path, x)
        if not _some(args) and not _some(kwargs):
            raise Refused(f"it is a {type(m).__name__} of constants or buffers: nothing of it depends on the inputs")
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

    def _embedded(self, m: nn.Embedding, path: str, numbers: torch.Tensor) -> _Parameter:
        flat = numbers.reshape(-1).tolist()
        if m.padding_idx is not None or m.max_norm is not None or m.scale_grad_by_freq or not flat \
                or flat != list(range(flat[0], flat[0] + len(flat))):
            raise Refused("of an Embedding the server has rows that lie behind each other (positions)")
        return _Parameter(_join(path, "weight"), flat[0], flat[-1] + 1)

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
        if name in _CONSTANTS and (isinstance(x, torch.Tensor) or name.startswith("new_") or name.endswith("s_like") or name == "full_like"):
            return None  # a constant, whose numbers are what was computed
        if isinstance(x, _Parameter) and name in _VIEWS:
            if concrete.numel() != self.env[n.args[0]].numel():
                raise Refused(f"a part of the parameter {x.name} is read, or it is repeated: the server's layers have all of one")
            return x
        if name in ("getattr", "size", "dim", "ndimension", "numel", "get_device", "is_floating_point"):
            return None
        if name == "getitem" and type(x) is tuple:
            if x[args[1]] is None:
                raise Refused("the attention's weights are not among the server's results")
            return x[args[1]]
        if isinstance(x, _Mask) and len(_some(args)) == 1 and not self._constants(n):
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
        raise Refused(f"the server has no layer for {name}()" + self._constants_said(n))

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
        constants = self._constants(n)
        if constants and len(some) == 1 and isinstance(first, _Value):
            return self._with_constants(name, n, first, concrete)
        if constants:
            raise Refused(f"the server has no layer for {name}() of these" + self._constants_said(n))
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
        if kinds == {_Value, _Parameter} and len(some) == 2:
            return self._with_parameter(name, n, some, concrete)
        if kinds != {_Value}:
            what = next((one for one in some if not isinstance(one, _Value)), None)
            raise Refused(f"the server has no layer for {name}() of "
                           + (f"the parameter {what.name}" if isinstance(what, _Parameter) else "these"))
        pair = self._pair(n, some) if len(some) == 2 else None
        if len({one.name for one in some}) == 1 and len({(one.layout, one.part) for one in some}) == 1:
            operands = {node: self.made[node].function for node in n.all_input_nodes if isinstance(self.made.get(node), _Value)}
            return some[0]._replace(function=_composed(n, operands, self.env), cuts=self._cuts(n),
                                    instead=pair[:3] if pair is not None and pair[3] == 0 else None)
        if pair is None:
            raise Refused(f"the server has no layer for {name}() of two values")
        shapes = [list(self._shape(node)) for node in n.all_input_nodes]
        if shapes[0] != shapes[-1]:
            raise Refused(f"{name}() of the shapes {shapes[0]} and {shapes[1]}: the server's layers read values of one shape")
        kind, a, b, term = pair
        made = self._layer(kind, n.name, [a, b], {}, {})
        return made if term == 0 else _through(made, lambda t: t + term)

    def _pair(self, n: fx.Node, some: List[_Value]) -> Optional[Tuple[str, _Value, _Value, float]]:
        """An operation of two values as a sum or product of both, each with a factor, and a term."""
        nodes = [node for node in n.all_input_nodes if isinstance(self.made.get(node), _Value)]
        if len(nodes) == 1:  # twice the same
            nodes = nodes * 2

        def at(s: float, t: float) -> float:
            points = {nodes[0]: s, nodes[1]: t}
            given = {node: (lambda _, p=p: torch.tensor(p, dtype=torch.float64)) for node, p in points.items()}
            return float(_composed(n, given, self.env)(torch.zeros((), dtype=torch.float64)))
        try:
            if nodes[0] is nodes[1]:
                zero, one, two = at(0, 0), at(1, 1), at(2, 2)
                if zero == 0 and abs(two - 2 * one) < 1e-12:
                    return "add", some[0], _scaled_by(some[1], one - 1), 0.0
                return ("multiply", some[0], _scaled_by(some[1], one), 0.0) if zero == 0 and abs(two - 4 * one) < 1e-12 else None
            zero, first, second, both, far = at(0, 0), at(1, 0), at(0, 1), at(1, 1), at(3, -2)
        except (RuntimeError, TypeError, ZeroDivisionError):
            return None
        a, b = (self.made[node] for node in nodes)
        if not all(map(math.isfinite, (zero, first, second, both, far))):
            return None
        if max(abs(first - zero + second - both), abs(zero + 3 * (first - zero) - 2 * (second - zero) - far)) < 1e-9:
            return "add", _scaled_by(a, first - zero), _scaled_by(b, second - zero), zero
        if zero == first == second == 0 and abs(far + 6 * both) < 1e-9:
            return "multiply", a, _scaled_by(b, both), 0.0
        return None

    def _cuts(self, n: fx.Node) -> Tuple[Tuple[_Value, Function], ...]:
        """Values that all operands are made of."""
        nodes = [node for node in n.all_input_nodes if isinstance(self.made.get(node), _Value)]
        first: _Value = self.made[nodes[0]]
        found = []
        for value, _ in [(first, _same), *first.cuts] if first.function is not None else ():
            ways = {node: next((way for one, way in [(self.made[node], _same), *self.made[node].cuts] if one.function is value.function), None)
                    for node in nodes}
            if all(way is not None for way in ways.values()):
                found.append((value, _composed(n, ways, self.env)))
        return tuple(found)

    # ---- constants and parameters, element by element

    def _constants(self, n: fx.Node) -> List[fx.Node]:
        return [node for node in n.all_input_nodes if node not in self.made and isinstance(self.env[node], torch.Tensor)
                and self.env[node].numel() > 1]

    def _constants_said(self, n: fx.Node) -> str:
        for node in self._constants(n):
            path = inner_path(str(node.target)) if node.op == "get_attr" else ""
            return f" of the buffer {path}" if path in self.tensors else " of a constant tensor"
        return ""

    def _with_constants(self, name: str, n: fx.Node, x: _Value, concrete: Any) -> Any:
        """x through an operation that is a line of it."""
        node = next(one for one in n.all_input_nodes if isinstance(self.made.get(one), _Value))
        shape = self._shape(node)
        line = self._line_of(n, node) if tuple(concrete.shape) == shape else None
        if line is None:
            raise Refused(f"the server has no layer for {name}()" + self._constants_said(n) + ": of constants it has factors and terms, of "
                          "the value's shape or one that becomes it")
        if isinstance(line.weight, float) and isinstance(line.bias, float):
            weight, bias = line
            return _through(x, lambda t: t * weight + bias)
        inner = _line(x.function)
        options: Dict[str, Any] = {"scale": line.weight if isinstance(line.weight, float) else 1.0,
                                   "shift": line.bias if isinstance(line.bias, float) else 0.0}
        if inner is not None and isinstance(line.weight, float):
            options = {"scale": inner[0] * line.weight, "shift": options["shift"] + inner[1] * line.weight}
            x = x._replace(function=None, instead=None, cuts=())
        elif inner is not None and inner[1] == 0:
            options["scale"] = inner[0]
            x = x._replace(function=None, instead=None, cuts=())
        return self._affine(n, x, options, {what: (tensor, None) for what, tensor in line._asdict().items() if isinstance(tensor, torch.Tensor)})

    def _line_of(self, n: fx.Node, node: fx.Node) -> Optional[_Line]:
        shape = self._shape(node)

        def at(number: float) -> torch.Tensor:
            point = torch.full(shape, number, dtype=torch.float64)
            return _composed(n, {node: lambda _: point}, self.env)(point).double().expand(shape)
        try:
            zero, one, minus, far = at(0), at(1), at(-1), at(3)
        except (RuntimeError, TypeError):
            return None
        weight = (one - minus) / 2
        rest = max(float((zero + 3 * weight - far).abs().max()), float((one + minus - 2 * zero).abs().max()))
        if not rest <= 1e-9 * (1 + float(far.abs().max())):
            return None
        size = float(far.abs().max())
        return _Line(_number_or_tensor(weight, size), _number_or_tensor(zero, size))

    def _affine(self, n: fx.Node, x: _Value, options: Dict[str, Any], constants: Mapping[str, Tuple[torch.Tensor, Any]]) -> _Value:
        """An affine layer. Of each constant its numbers, of the value's shape, and the parameter that it is, or None: it is fixed."""
        tensors, sources, kinds = {}, {}, {}  # type: Dict[str, torch.Tensor], Dict[str, Source], Dict[str, str]
        for what, (tensor, parameter) in constants.items():
            if x.layout == "tokens first":
                tensor = tensor.transpose(0, 1)
            elif x.layout != "rows":
                raise Refused("a constant is combined with a value whose heads are split")
            if not torch.equal(tensor, tensor[:1].expand_as(tensor)):
                raise Refused("a constant is not the same for all rows")
            tensors[what] = (tensor[0].reshape(-1, tensor.shape[-1]) if tensor.dim() > 1 else tensor[:1].reshape(1, 1)).float()
        # Of what trains the shape decides: what begins with zeros does not stay so.
        whole = any(parameter is not None and self._of(parameter).numel() != tensors[what].shape[-1]
                    or parameter is None and not torch.equal(tensors[what], tensors[what][:1].expand_as(tensors[what]))
                    for what, (_, parameter) in constants.items())
        plain = {what: tensor if whole else tensor[0] for what, tensor in tensors.items()}
        for what, (_, parameter) in constants.items():
            sources[what] = self._source_of(plain[what], parameter, n)
            kinds[what] = "fixed" if parameter is None else "trained"
        layer = {key: value for key, value in {**options, **kinds}.items() if value != {"scale": 1.0, "shift": 0.0}.get(key)}
        stem = next((source.name.rpartition(".")[2] for source in sources.values() if source.name), n.name)
        made = self._layer("affine", stem, [x], {**layer, **({"over": "row"} if whole else {})}, sources)
        for what, tensor in plain.items():
            if not sources[what].name:
                self.computed[f"{made.name}.{what}"] = tensor
        return made

    def _of(self, parameter: _Parameter) -> torch.Tensor:
        return Source(parameter.name, parameter.begin, parameter.end).of(self.tensors)

    def _source_of(self, plain: torch.Tensor, parameter: Optional[_Parameter], n: fx.Node) -> Source:
        if parameter is not None:
            part = self._of(parameter)
            if part.numel() != plain.numel():
                raise Refused(f"the parameter {parameter.name} of the shape {list(part.shape)} is repeated: the server has a number for each of "
                              "the last dimension's, or for each of a row's")
            shape = None if part.shape == plain.shape else tuple(plain.shape)
            return Source(parameter.name, parameter.begin, parameter.end, shape)
        for node in n.all_input_nodes:
            name = inner_path(str(node.target)) if node.op == "get_attr" else ""
            buffer = self.tensors.get(name)
            if buffer is not None and buffer.dtype == torch.float32 and buffer.numel() == plain.numel() \
                    and torch.equal(buffer.reshape(plain.shape), plain) and all(source.name != name for source in self.sources.values()):
                return Source(name, shape=None if buffer.shape == plain.shape else tuple(plain.shape))
        return Source("")

    def _with_parameter(self, name: str, n: fx.Node, some: List[Any], concrete: Any) -> Any:
        nodes = {type(self.made[node]): node for node in n.all_input_nodes if node in self.made}
        x, parameter = self.made[nodes[_Value]], self.made[nodes[_Parameter]]
        if not self.tensors[parameter.name].requires_grad:
            return self._with_constants(name, n, x, concrete)
        shape = self._shape(nodes[_Value])
        if name not in _SUMS | _PRODUCTS | _DIFFERENCES or n.kwargs.get("alpha", 1) != 1:
            raise Refused(f"the server has no layer for {name}() of the parameter {parameter.name}: it has sums, differences and products with one")
        if tuple(concrete.shape) != shape or self._of(parameter).numel() == 1 != shape[-1]:
            raise Refused(f"{name}() of the parameter {parameter.name} of the shape {list(self._of(parameter).shape)} and a value of the shape "
                          f"{list(shape)}: the server has a number for each of the last dimension's, or for each of a row's")
        numbers = self.env[nodes[_Parameter]].detach().double().expand(shape)
        inner = _line(x.function)
        if inner is not None and (inner[1] == 0 or name not in _PRODUCTS):
            x = x._replace(function=None, instead=None, cuts=())
        else:
            inner = 1.0, 0.0
        if name in _PRODUCTS:
            return self._affine(n, x, {"scale": inner[0], "shift": 0.0}, {"weight": (numbers, parameter)})
        if name in _SUMS:
            return self._affine(n, x, {"scale": inner[0], "shift": inner[1]}, {"bias": (numbers, parameter)})
        made = self._affine(n, x, {"scale": -inner[0], "shift": -inner[1]}, {"bias": (numbers, parameter)})  # parameter - x
        return _through(made, lambda t: -t) if n.args[0] is nodes[_Value] else made

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
            if order is not None and len(order) > 2 and order == (*range(len(order) - 2), len(order) - 1, len(order) - 2) \
                    and x.layout in ("rows", "turned rows"):
                return x._replace(layout="turned rows" if x.layout == "rows" else "rows")
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
        if isinstance(a, _Scores) and a.form == "scores" and a.mask is None:  # without a softmax they are a product like others
            operands = [x._replace(layout="rows", heads=0) for x in (a.q, a.k)]
            made = self._layer("matmul", "scores", operands, {"heads": a.q.heads, "transpose": "second", **_unless_one("scale", a.scale)}, {})
            a = made._replace(layout="heads", heads=a.q.heads)
        if isinstance(a, _Value) and isinstance(b, _Value) and len(self._shape(n.args[0])) == len(self._shape(n.args[1])) > 2:
            factor_a, a = _without_factor(a)
            factor_b, b = _without_factor(b)
            options = _unless_one("scale", factor_a * factor_b)
            if a.layout == b.layout == "heads" and a.heads == b.heads:
                operands = [x._replace(layout="rows", heads=0) for x in (a, b)]
                return self._layer("matmul", n.name, operands, {"heads": a.heads, **options}, {})._replace(layout="heads", heads=a.heads)
            if a.layout == "rows" and b.layout in ("rows", "turned rows"):
                turned = {"transpose": "second"} if b.layout == "turned rows" else {}
                return self._layer("matmul", n.name, [a, b._replace(layout="rows")], {**turned, **options}, {})
        raise Refused("of products the server has those with weights (linear), of two values element by element (multiply) or matrix by "
                       "matrix (matmul), and those in attention")

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
        if len({x.heads for x in (q, k, v)}) != 1:
            raise Refused("the server's attention has as many heads for queries, keys and values")
        if abs(scale * math.sqrt(width) - 1) > 1e-5:  # it divides the scores by the root of a head's size
            q = _scaled_by(q, _rounded(scale * math.sqrt(width)))
        third = width * q.heads
        parts = [x.part for x in (q, k, v)]
        if q.function is k.function is v.function is None and parts == [(i * third, (i + 1) * third, 3 * third) for i in range(3)] and q.name == k.name == v.name:
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
            if source.name and any(other.name == source.name and (other.begin, other.end) == (source.begin, source.end)
                   for other in self.sources.values()):
                raise Refused(f"{source.name} is used twice: each of the server's layers has weights of its own")
            parameter = f"{name}.{what}"
            if kind in ("linear", "affine") and source.end is None and source.name != parameter and _is_name(source.name):
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
        if activation is None:
            if id(x.function) not in self.settled:
                self.settled[id(x.function)] = x.function, self._in_steps(x)  # type: ignore[assignment]
            return self.settled[id(x.function)][1]
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

    def _in_steps(self, x: _Value) -> str:
        """A function that is no activation, as several layers: the fewer, the farther back they begin."""
        assert x.function is not None
        for value, way in [(x._replace(function=None, instead=None, cuts=()), x.function), *reversed(x.cuts)]:
            steps = _steps(way)
            if steps is None:
                continue
            name = self._settle(value)
            for step in steps:
                made = self._name(step["layer"])
                self.layers[made] = {"name": made, "layer": step["layer"], "input": name, **step}
                name = made
            return name
        if x.instead is None:
            raise Refused("a function of single numbers that is none of the server's activations (relu, gelu, gelu_erf, silu), with factors and "
                          "terms")
        kind, first, second = x.instead
        return self._layer(kind, kind, [first._replace(layout="rows"), second._replace(layout="rows")], {}, {}).name

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
            read = self._settle(x._replace(function=None, instead=None, cuts=()))
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


def _unless_one(option: str, number: float) -> Dict[str, Any]:
    return {} if abs(number - 1) < 1e-9 else {option: number}


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
    line = _line(function)
    return line[0] if line is not None and line[1] == 0 else None


def _line(function: Optional[Function]) -> Optional[Tuple[float, float]]:
    """(a, b) of a function that gives a t + b."""
    if function is None:
        return 1.0, 0.0
    try:
        zero, one = (float(function(torch.full((1,), t, dtype=torch.float64))) for t in (0.0, 1.0))
    except (RuntimeError, TypeError):
        return None
    weight = one - zero
    if not math.isfinite(weight) or weight == 0 or not _agree(function, lambda t: t * weight + zero):
        return None
    return _rounded(weight), _rounded(zero)


def _rounded(number: float) -> float:
    """As a float32 is told from others."""
    return float(f"{number:.9g}")


def _number_or_tensor(numbers: torch.Tensor, size: float) -> Union[float, torch.Tensor]:
    first = numbers.reshape(-1)[0]
    return _rounded(float(first)) if bool(((numbers - first).abs() <= 1e-12 * (1 + size)).all()) else numbers


def _steps(function: Function) -> Optional[List[Dict[str, Any]]]:
    """The layers of one value that are it: an activation, a line, or an activation between two factors."""
    for activation, its in ACTIVATIONS.items():
        if activation != "none" and _agree(function, its):
            return [{"layer": "activation", "activation": activation}]
    line = _line(function)
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
        outer = _rounded(slope / a)
        return (a, outer) if _agree(function, lambda t: outer * activation(a * t)) else None
    except (RuntimeError, TypeError, ZeroDivisionError, OverflowError):
        return None


def _same(t: torch.Tensor) -> torch.Tensor:
    return t


def _scaled_by(x: _Value, factor: float) -> _Value:
    return x if factor == 1 else _through(x, lambda t: t * factor)


def _without_factor(x: _Value) -> Tuple[float, _Value]:
    factor = _factor(x.function)
    return (1.0, x) if factor is None else (factor, x._replace(function=None, instead=None, cuts=()))


def _through(x: _Value, function: Function) -> _Value:
    def both(t: torch.Tensor) -> torch.Tensor:
        return function(t if x.function is None else x.function(t))
    def after(way: Function) -> Function:
        return lambda t: function(way(t))
    cuts = ((x, function), *((value, after(way)) for value, way in x.cuts)) if x.function is not None else ()
    return x._replace(function=both, instead=None, cuts=cuts)


def _composed(n: fx.Node, operands: Mapping[fx.Node, Optional[Function]], env: Mapping[fx.Node, Any]) -> Function:
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
