"""Operations element by element: of values, of numbers, and of constants and parameters that do not depend on the rows."""
from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

import torch
from torch import fx

from ..declaration import Source
from ..tracing import Refused, inner_path
from .functions import Function, composed, factor_of, line_of, rounded, same
from .norms import Norms
from .operations import DIFFERENCES, PRODUCTS, QUOTIENTS, SAMES, SUMS
from .values import Mask, Mean, Normalized, Parameter, Scores, Value, scaled_by, some_of, through

__all__ = ["Elementwise"]


class _Line(NamedTuple):
    """weight * x + bias, each a number, or one for each of a tensor's."""
    weight: Union[float, torch.Tensor]
    bias: Union[float, torch.Tensor]


class Elementwise(Norms):
    def _by_element(self, name: str, n: fx.Node, args: List[Any], kwargs: Dict[str, Any], concrete: Any) -> Any:
        some = some_of(args) + some_of(kwargs)
        first = some[0]
        constants = self._constants(n)
        if constants and len(some) == 1 and isinstance(first, Value):
            return self._with_constants(name, n, first, concrete)
        if constants:
            raise Refused(f"the server has no layer for {name}() of these" + self._constants_said(n))
        if isinstance(first, (Mean, Scores)) and len(some) == 1:
            return self._with_number(name, first, args)
        kinds = {type(one) for one in some}
        if Mean in kinds and name in PRODUCTS | QUOTIENTS and len(some) == 2:
            mean = next(one for one in some if isinstance(one, Mean))
            other = some[1] if some[0] is mean else some[0]
            wanted = "inverse root" if name in PRODUCTS else "root"
            if other != mean.of or mean.form != wanted or (name in QUOTIENTS and some[1] is not mean):
                raise Refused("a root mean square is the server's in rms_norm alone: x / root(mean(x²) + epsilon)")
            return Normalized(mean.of, mean.epsilon)
        if Normalized in kinds and Parameter in kinds and name in PRODUCTS:
            return self._scaled(n, *sorted(some, key=lambda one: isinstance(one, Parameter)))
        if kinds == {Value, Mask} and name in PRODUCTS | QUOTIENTS and len(some) == 2:
            return self._masked(name, n, some)
        if kinds == {Value, Parameter} and len(some) == 2:
            return self._with_parameter(name, n, some, concrete)
        if kinds != {Value}:
            what = next((one for one in some if not isinstance(one, Value)), None)
            raise Refused(f"the server has no layer for {name}() of "
                           + (f"the parameter {what.name}" if isinstance(what, Parameter) else "these"))
        pair = self._pair(n, some) if len(some) == 2 else None
        if len({one.name for one in some}) == 1 and len({(one.layout, one.part) for one in some}) == 1:
            operands = {node: self.made[node].function for node in n.all_input_nodes if isinstance(self.made.get(node), Value)}
            return some[0]._replace(function=composed(n, operands, self.env), cuts=self._cuts(n),
                                    instead=pair[:3] if pair is not None and pair[3] == 0 else None)
        if pair is None:
            raise Refused(f"the server has no layer for {name}() of two values")
        shapes = [list(self._shape(node)) for node in n.all_input_nodes]
        if shapes[0] != shapes[-1]:
            raise Refused(f"{name}() of the shapes {shapes[0]} and {shapes[1]}: the server's layers read values of one shape")
        kind, a, b, term = pair
        made = self.block.add(kind, n.name, [a, b], {}, {})
        return made if term == 0 else through(made, lambda t: t + term)

    def _pair(self, n: fx.Node, some: List[Value]) -> Optional[Tuple[str, Value, Value, float]]:
        """An operation of two values as a sum or product of both, each with a factor, and a term."""
        nodes = [node for node in n.all_input_nodes if isinstance(self.made.get(node), Value)]
        if len(nodes) == 1:  # twice the same
            nodes = nodes * 2

        def at(s: float, t: float) -> float:
            points = {nodes[0]: s, nodes[1]: t}
            given = {node: (lambda _, p=p: torch.tensor(p, dtype=torch.float64)) for node, p in points.items()}
            return float(composed(n, given, self.env)(torch.zeros((), dtype=torch.float64)))
        try:
            if nodes[0] is nodes[1]:
                zero, one, two = at(0, 0), at(1, 1), at(2, 2)
                if zero == 0 and abs(two - 2 * one) < 1e-12:
                    return "add", some[0], scaled_by(some[1], one - 1), 0.0
                return ("multiply", some[0], scaled_by(some[1], one), 0.0) if zero == 0 and abs(two - 4 * one) < 1e-12 else None
            zero, first, second, both, far = at(0, 0), at(1, 0), at(0, 1), at(1, 1), at(3, -2)
        except (RuntimeError, TypeError, ZeroDivisionError):
            return None
        a, b = (self.made[node] for node in nodes)
        if not all(map(math.isfinite, (zero, first, second, both, far))):
            return None
        if max(abs(first - zero + second - both), abs(zero + 3 * (first - zero) - 2 * (second - zero) - far)) < 1e-9:
            return "add", scaled_by(a, first - zero), scaled_by(b, second - zero), zero
        if zero == first == second == 0 and abs(far + 6 * both) < 1e-9:
            return "multiply", a, scaled_by(b, both), 0.0
        return None

    def _cuts(self, n: fx.Node) -> Tuple[Tuple[Value, Function], ...]:
        """Values that all operands are made of."""
        nodes = [node for node in n.all_input_nodes if isinstance(self.made.get(node), Value)]
        first: Value = self.made[nodes[0]]
        found = []
        for value, _ in [(first, same), *first.cuts] if first.function is not None else ():
            ways = {node: next((way for one, way in [(self.made[node], same), *self.made[node].cuts] if one.function is value.function), None)
                    for node in nodes}
            if all(way is not None for way in ways.values()):
                found.append((value, composed(n, ways, self.env)))
        return tuple(found)

    # ---- constants and parameters

    def _with_constants(self, name: str, n: fx.Node, x: Value, concrete: Any) -> Any:
        """x through an operation that is a line of it."""
        node = next(one for one in n.all_input_nodes if isinstance(self.made.get(one), Value))
        shape = self._shape(node)
        line = self._line_of(n, node) if tuple(concrete.shape) == shape else None
        if line is None:
            raise Refused(f"the server has no layer for {name}()" + self._constants_said(n) + ": of constants it has factors and terms, of "
                          "the value's shape or one that becomes it")
        if isinstance(line.weight, float) and isinstance(line.bias, float):
            weight, bias = line
            return through(x, lambda t: t * weight + bias)
        inner = line_of(x.function)
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
            return composed(n, {node: lambda _: point}, self.env)(point).double().expand(shape)
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

    def _affine(self, n: fx.Node, x: Value, options: Dict[str, Any], constants: Mapping[str, Tuple[torch.Tensor, Any]]) -> Value:
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
        made = self.block.add("affine", stem, [x], {**layer, **({"over": "row"} if whole else {})}, sources)
        for what, tensor in plain.items():
            if not sources[what].name:
                self.computed[f"{made.name}.{what}"] = tensor
        return made

    def _source_of(self, plain: torch.Tensor, parameter: Optional[Parameter], n: fx.Node) -> Source:
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
                    and torch.equal(buffer.reshape(plain.shape), plain) and all(source.name != name for source in self.block.sources.values()):
                return Source(name, shape=None if buffer.shape == plain.shape else tuple(plain.shape))
        return Source("")

    def _with_parameter(self, name: str, n: fx.Node, some: List[Any], concrete: Any) -> Any:
        nodes = {type(self.made[node]): node for node in n.all_input_nodes if node in self.made}
        x, parameter = self.made[nodes[Value]], self.made[nodes[Parameter]]
        if not self.tensors[parameter.name].requires_grad:
            return self._with_constants(name, n, x, concrete)
        shape = self._shape(nodes[Value])
        if name not in SUMS | PRODUCTS | DIFFERENCES or n.kwargs.get("alpha", 1) != 1:
            raise Refused(f"the server has no layer for {name}() of the parameter {parameter.name}: it has sums, differences and products with one")
        if tuple(concrete.shape) != shape or self._of(parameter).numel() == 1 != shape[-1]:
            raise Refused(f"{name}() of the parameter {parameter.name} of the shape {list(self._of(parameter).shape)} and a value of the shape "
                          f"{list(shape)}: the server has a number for each of the last dimension's, or for each of a row's")
        numbers = self.env[nodes[Parameter]].detach().double().expand(shape)
        inner = line_of(x.function)
        if inner is not None and (inner[1] == 0 or name not in PRODUCTS):
            x = x._replace(function=None, instead=None, cuts=())
        else:
            inner = 1.0, 0.0
        if name in PRODUCTS:
            return self._affine(n, x, {"scale": inner[0], "shift": 0.0}, {"weight": (numbers, parameter)})
        if name in SUMS:
            return self._affine(n, x, {"scale": inner[0], "shift": inner[1]}, {"bias": (numbers, parameter)})
        made = self._affine(n, x, {"scale": -inner[0], "shift": -inner[1]}, {"bias": (numbers, parameter)})  # parameter - x
        return through(made, lambda t: -t) if n.args[0] is nodes[Value] else made

    # ---- what is no value

    def _with_number(self, name: str, x: Union[Mean, Scores], args: List[Any]) -> Any:
        numbers = [float(a) for a in args if isinstance(a, (int, float)) or isinstance(a, torch.Tensor) and a.numel() == 1]
        if isinstance(x, Scores) and x.form == "scores" and len(numbers) == 1 and name in PRODUCTS | QUOTIENTS:
            return x._replace(scale=x.scale * (numbers[0] if name in PRODUCTS else 1 / numbers[0]))
        if isinstance(x, Mean):
            if x.form == "mean" and name in SUMS and len(numbers) == 1:
                return x._replace(epsilon=x.epsilon + numbers[0])
            forms = {("mean", "sqrt"): "root", ("mean", "rsqrt"): "inverse root", ("root", "reciprocal"): "inverse root"}
            if name == "pow" and len(numbers) == 1 and abs(numbers[0]) == 0.5:
                name = "sqrt" if numbers[0] > 0 else "rsqrt"
            if (x.form, name) in forms:
                return x._replace(form=forms[x.form, name])
        raise Refused(f"the server has no layer for {name}() of this")

    def _masked(self, name: str, n: fx.Node, some: List[Any]) -> Value:
        x, mask = sorted(some, key=lambda one: isinstance(one, Mask))
        if mask.inverted or name in QUOTIENTS:
            raise Refused(f"the server multiplies with {mask.name} as it is")
        scale = mask.scale
        if x.function is not None:
            factor = factor_of(x.function)
            if factor is not None:
                x, scale = x._replace(function=None, instead=None), scale * factor
        return self.block.add("mask", n.name, [x], {"scale": scale}, {}, mask.name)

    def _mask_alone(self, name: str, x: Mask, args: List[Any], concrete: Any) -> Any:
        """Casts, negation, dimensions for broadcasting, and factors."""
        if name in SAMES or name in ("bool", "unsqueeze", "view", "reshape", "getitem", "long", "int"):
            return x
        if name in ("invert", "logical_not", "bitwise_not"):
            return x._replace(inverted=not x.inverted)
        others = [a for a in args if not isinstance(a, Mask)]
        if name in PRODUCTS | QUOTIENTS and len(others) == 1 and (args[0] == x or name in PRODUCTS):
            return x._replace(scale=x.scale * (float(others[0]) if name in PRODUCTS else 1 / float(others[0])))
        raise Refused(f"the server does not compute {name}() of the input {x.name}, which is no float32")


def _number_or_tensor(numbers: torch.Tensor, size: float) -> Union[float, torch.Tensor]:
    first = numbers.reshape(-1)[0]
    return rounded(float(first)) if bool(((numbers - first).abs() <= 1e-12 * (1 + size)).all()) else numbers
