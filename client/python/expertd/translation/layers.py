"""The block that a trace becomes, layer by layer."""
from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

from ..declaration import ACTIVATIONS, Source
from ..tracing import ExportError, Refused
from .functions import Function, agree, factor_of, steps_of
from .values import Value

__all__ = ["Layers"]

NAME_MAX = 47


class Layers:
    """Layers by name, as the configuration has them, and where their weights come from. `inputs`: the block's, by name."""

    def __init__(self, inputs: Iterable[str]):
        self.inputs = frozenset(inputs)
        self.layers: Dict[str, Dict[str, Any]] = {}
        self.sources: Dict[str, Source] = {}
        self.outputs: List[Tuple[str, str]] = []
        self._places: Dict[int, str] = {}  # of functions: the paths of the modules that they are from
        self._settled: Dict[int, Tuple[Function, str]] = {}  # what became of functions, which are kept so that no other is at its place
        self._raw: Set[str] = set()  # values that are read as they are
        self._scaled: Dict[str, float] = {}  # masks' results that are read with a factor
        self._activations: Dict[Tuple[str, str], str] = {}  # that are layers of their own
        self._parts: Dict[Tuple[str, int, int], str] = {}  # of linear layers' results, which are layers of their own

    def note_place(self, value: Value, path: str) -> None:
        """That the module at that path has made of it what it is. The caller keeps the value."""
        if value.function is not None:
            self._places.setdefault(id(value.function), path)

    def add(self, kind: str, name: str, operands: List[Value], options: Dict[str, Any], sources: Dict[str, Source],
               mask: Optional[str] = None) -> Value:
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
        return Value(name, layout=layouts.pop())

    def _name(self, wanted: str) -> str:
        stem = wanted if _is_name(wanted) else f"layer{len(self.layers)}"
        name, number = stem, 1
        while name in self.layers or name in self.inputs:
            number += 1
            name = f"{stem}_{number}"
        return name

    def _settle(self, x: Value) -> str:
        """What reads x reads the layer of that name: an activation becomes its layer's."""
        if x.part is not None:
            x = x._replace(name=self._split(x.name, *x.part[:2]), part=None)
        layer = self.layers.get(x.name)
        activation: Optional[str] = "none"
        if x.function is not None:
            activation = next((name for name, function in ACTIVATIONS.items() if agree(x.function, function)), "")
            activation = activation or None
        if activation is None and layer is not None and layer["layer"] == "mask" and x.name not in self._raw:
            factor = factor_of(x.function)
            if factor is not None and self._scaled.get(x.name, factor) == factor:
                if x.name not in self._scaled:
                    self._scaled[x.name] = factor
                    layer["scale"] *= factor
                return x.name
        if activation is None:
            if id(x.function) not in self._settled:
                self._settled[id(x.function)] = x.function, self._in_steps(x)  # type: ignore[assignment]
            return self._settled[id(x.function)][1]
        if activation == "none":
            if layer is not None and layer["layer"] == "linear" and "activation" in layer:
                self._take_apart(x.name)
            if x.name in self._scaled:
                raise Refused(f"{x.name} is read with a factor and without: the server's mask has one scale")
            self._raw.add(x.name)
        elif layer is None or layer["layer"] != "linear" or x.name in self._raw or layer.get("activation", activation) != activation:
            return self._activated(x, activation)
        else:
            layer["activation"] = activation
        return x.name

    def _in_steps(self, x: Value) -> str:
        """A function that is no activation, as several layers: the fewer, the farther back they begin."""
        assert x.function is not None
        for value, way in [(x._replace(function=None, instead=None, cuts=()), x.function), *reversed(x.cuts)]:
            steps = steps_of(way)
            if steps is None:
                continue
            name = self._settle(value)
            for step in steps:
                made = self._name(step["layer"])
                self.layers[made] = {"name": made, "layer": step["layer"], "input": name, **step}
                name = made
            return name
        if x.instead is None:
            functions = [value.function for value, _ in reversed(x.cuts)] + [x.function]
            first_of_none = next((one for one in functions if one is not None and steps_of(one) is None), x.function)
            raise ExportError(self._places.get(id(first_of_none), ""), "a function of single numbers that is none of the server's activations "
                              "(relu, gelu, gelu_erf, silu), with factors and terms")
        kind, first, second = x.instead
        return self.add(kind, kind, [first._replace(layout="rows"), second._replace(layout="rows")], {}, {}).name

    def _split(self, name: str, begin: int, end: int) -> str:
        """A part of a linear layer's result is what a layer with those rows of its weights makes of the same."""
        found = self._parts.get((name, begin, end))
        if found is not None:
            return found
        whole = self.layers.get(name)
        if whole is None or whole["layer"] != "linear":
            raise Refused("a part of " + ("an input" if whole is None else f"the result of a layer of kind {whole['layer']}")
                          + " is read: the server has parts of linear layers' results, and queries, keys and values side by side")
        made = self._parts[name, begin, end] = self._name(f"{name}.{len(self._parts)}" if len(name) < NAME_MAX - 3 else "part")
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
        apart = self._activations[name, activation] = self._name(f"{activation}{len(self.layers)}")
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

    def _activated(self, x: Value, activation: str) -> str:
        """The activation as a layer of its own, one for all that read it."""
        found = self._activations.get((x.name, activation))
        if found is None:
            read = self._settle(x._replace(function=None, instead=None, cuts=()))
            found = self._activations[x.name, activation] = self._name(f"{activation}{len(self.layers)}")
            self.layers[found] = {"name": found, "layer": "activation", "input": read, "activation": activation}
        return found

    def add_output(self, name: str, value: Any) -> None:
        if not isinstance(value, Value) or value.layout != "rows":
            raise ExportError("", f"{name} is no layer's result, [rows, ...]")
        try:
            settled = self._settle(value)
        except Refused as refused:
            raise ExportError("", f"{name}: {refused}") from None
        if settled not in self.layers:
            raise ExportError("", f"{name} is the input {settled} itself")
        if settled in [other for _, other in self.outputs]:
            raise ExportError("", f"{name} is another output's value")
        self.outputs.append((name, settled))


def _is_name(name: str) -> bool:
    return len(name) <= NAME_MAX and bool(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", name))
