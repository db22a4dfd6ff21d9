"""A block made of the server's layers (docs/blocks.md), with weights: what export() makes of a module."""
from __future__ import annotations

import math
import os
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from torch.nn import functional

from .safetensors import save_tensors

__all__ = ["ACTIVATIONS", "Exported", "Source", "evaluate", "gelu_tanh"]


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """The server's `gelu`."""
    return 0.5 * x * (1 + torch.tanh(0.7978845608 * x * (1 + 0.044715 * x * x)))


ACTIVATIONS: Dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x, "relu": torch.relu, "gelu": gelu_tanh, "gelu_erf": functional.gelu, "silu": functional.silu}


class Source(NamedTuple):
    """Where a parameter of the block is in the module: rows begin to end of the parameter or buffer of that name; end None:
    all of it. shape: the block's, where the module's has more dimensions. name "": a constant that was computed."""
    name: str
    begin: int = 0
    end: Optional[int] = None
    shape: Optional[Tuple[int, ...]] = None

    def of(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        whole = tensors[self.name]
        part = whole if self.end is None else whole[self.begin:self.end]
        return part if self.shape is None else part.reshape(self.shape)


def tensors_of(module: torch.nn.Module) -> Dict[str, torch.Tensor]:
    """Of the state dict, parameters as such."""
    kept = module.state_dict()
    return {**{name: buffer for name, buffer in module.named_buffers() if name in kept}, **dict(module.named_parameters())}


class Exported:
    """`block`: the declaration, an entry of `blocks` in a server's configuration. `weights`: its parameters by their
    names, float32. `hidden_dim`: for the entries of `experts` that use it. `sources`: for each parameter where it is in
    the module. `rest`: the module's parameters of which some rows matter for nothing, and buffers that became numbers. `shapes`: of those of the module's tensors
    that have another shape there. `again`: exports another module in the same way. Server.create(expert_cls=...) takes one."""

    def __init__(self, block: Dict[str, Any], hidden_dim: int, sources: Dict[str, Source], weights: Dict[str, torch.Tensor],
                 rest: Optional[Mapping[str, torch.Tensor]] = None, shapes: Optional[Mapping[str, Tuple[int, ...]]] = None,
                 again: Optional[Callable[[torch.nn.Module], "Exported"]] = None):
        self.block, self.hidden_dim, self.sources, self.weights = block, hidden_dim, sources, weights
        self.rest, self.shapes, self.again = dict(rest or {}), dict(shapes or {}), again

    @property
    def name(self) -> str:
        return str(self.block["name"])

    def __repr__(self) -> str:
        inputs = ", ".join(f"{i['name']}: {i.get('dtype', 'float32')}{['rows', *i['shape']]}".replace("'", "")
                           for i in self.block["inputs"])
        fixed = sum(self.weights[name].numel() for name in self.fixed())
        count = sum(tensor.numel() for tensor in self.weights.values()) - fixed
        return (f"Exported({self.name}({inputs}) -> {', '.join(o['name'] for o in self.block['outputs'])}: "
                f"{len(self.block['layers'])} layers, {count:,} parameters{f', {fixed:,} fixed numbers' if fixed else ''})")

    def fixed(self) -> List[str]:
        """The names of those of `weights` that do not train: buffers, and other constants."""
        return [layer.get(f"{what}_name", f"{layer['name']}.{what}") for layer in self.block["layers"] if layer["layer"] == "affine"
                for what in ("weight", "bias") if layer.get(what) == "fixed"]

    def weights_of(self, module: torch.nn.Module) -> Dict[str, torch.Tensor]:
        """The block's parameters with another module's values, which has to be of the same kind and sizes."""
        if self.again is not None and any(not source.name for source in self.sources.values()):
            other = self.again(module)  # constants that were computed are computed anew
            if other.block != self.block:
                raise ValueError("the module would be another block than the one that was exported")
            return other.weights
        tensors = tensors_of(module)
        found = {}
        for name, source in self.sources.items():
            if source.name not in tensors or (self.shapes.get(source.name, tensors[source.name].shape) != tensors[source.name].shape
                                              or source.of(tensors).shape != self.weights[name].shape):
                raise ValueError(f"the module has no {source.name} as the one that was exported has it")
            found[name] = source.of(tensors).detach().to("cpu", torch.float32).contiguous().clone()
        return found

    def state_dict(self, tensors: Optional[Mapping[str, torch.Tensor]] = None) -> Dict[str, torch.Tensor]:
        """The module's state dict of an expert's parameters, those of a checkpoint (load_tensors()) for example; None:
        of `weights`. For module.load_state_dict(..., strict=False): parameters that the block does not use are not there."""
        given = self.weights if tensors is None else tensors
        parts: Dict[str, List[Tuple[int, torch.Tensor]]] = {}
        for name, source in self.sources.items():
            if source.name:
                parts.setdefault(source.name, []).append((source.begin, given[name]))
        found = {name: torch.cat([part for _, part in sorted(some, key=lambda one: one[0])]) if len(some) > 1 else some[0][1]
                 for name, some in parts.items() if name not in self.rest}
        for name, whole in self.rest.items():
            found[name] = whole.clone()
            for begin, part in parts.get(name, ()):
                found[name][begin:begin + len(part)] = part
        return {name: tensor.reshape(self.shapes.get(name, tensor.shape)) for name, tensor in found.items()}

    def __call__(self, *inputs: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        """What the server computes, computed here: one tensor for each output, with gradients."""
        return evaluate(self.block, self.weights, inputs)

    def yaml(self) -> str:
        """The declaration as it stands in a configuration."""
        lines = ["blocks:", f"  - name: {_yaml(self.name)}"]
        for section in ("inputs", "layers", "outputs"):
            lines += [f"    {section}:"] + [f"      - {_yaml(entry)}" for entry in self.block[section]]
        return "\n".join(lines) + "\n"

    def save(self, folder: str) -> Tuple[str, str]:
        """Writes <name>.yaml and <name>.safetensors there; their paths."""
        paths = os.path.join(folder, self.name + ".yaml"), os.path.join(folder, self.name + ".safetensors")
        example = (f"# For a server's configuration, beside\n# experts:\n#   - {{uid: {self.name}.0, block: {self.name}, "
                   f"hidden_dim: {self.hidden_dim}, weights: {os.path.basename(paths[1])}}}\n")
        with open(paths[0], "w", encoding="utf-8") as out:
            out.write(example + self.yaml())
        save_tensors(paths[1], self.weights)
        return paths


_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not (re.fullmatch(r"[A-Za-z_][\w.-]*", value) and value.lower() not in _WORDS):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value) if isinstance(value, float) else str(value)


# ---- what a declaration means

def evaluate(block: Mapping[str, Any], weights: Mapping[str, torch.Tensor], inputs: Sequence[torch.Tensor]
             ) -> Tuple[torch.Tensor, ...]:
    """The outputs of a declaration whose sizes are numbers; its layers stand behind those that they read."""
    values = {entry["name"]: tensor for entry, tensor in zip(block["inputs"], inputs)}
    for layer in block["layers"]:
        operands = [values[name] for name in layer.get("inputs", [layer.get("input")])]
        values[layer["name"]] = _KINDS[layer["layer"]](layer, operands, weights, values)
    return tuple(values[output["value"]] for output in block["outputs"])


def _linear(layer: Any, operands: Any, weights: Any, values: Any) -> torch.Tensor:
    name = layer["name"]
    bias = weights[layer.get("bias_name", name + ".bias")] if layer.get("bias", True) else None
    summed = functional.linear(operands[0], weights[layer.get("weight_name", name + ".weight")], bias)
    return ACTIVATIONS[layer.get("activation", "none")](summed)


def _layer_norm(layer: Any, operands: Any, weights: Any, values: Any) -> torch.Tensor:
    weight, bias = (weights[f"{layer['name']}.{what}"] for what in ("weight", "bias"))
    return functional.layer_norm(operands[0], weight.shape, weight, bias, layer["epsilon"])


def _rms_norm(layer: Any, operands: Any, weights: Any, values: Any) -> torch.Tensor:
    (x,) = operands
    scaled: torch.Tensor = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + layer["epsilon"])
    return scaled * weights[layer["name"] + ".weight"]


def _attention(layer: Any, operands: Any, weights: Any, values: Any) -> torch.Tensor:
    q, k, v = operands if len(operands) == 3 else operands[0].chunk(3, dim=-1)
    rows, tokens, width = q.shape
    q, k, v = (x.reshape(rows, tokens, layer["heads"], -1).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(width / layer["heads"])
    if "mask" in layer:
        scores = scores.masked_fill(values[layer["mask"]][:, None, None, :], -math.inf)
    # A row whose keys are all left out attends to nothing.
    attended: torch.Tensor = torch.nan_to_num(torch.softmax(scores, -1)) @ v
    return attended.transpose(1, 2).reshape(rows, tokens, width)


def _affine(layer: Any, operands: Any, weights: Any, values: Any) -> torch.Tensor:
    x, rows = operands[0], len(operands[0])
    y: torch.Tensor = x * layer.get("scale", 1.0)
    numbers = {what: weights[layer.get(f"{what}_name", f"{layer['name']}.{what}")] for what in ("weight", "bias")
               if layer.get(what, "none") != "none"}
    if layer.get("over") == "row":
        numbers = {what: tensor.reshape(x.shape[1:]).expand(rows, *x.shape[1:]) for what, tensor in numbers.items()}
    return y * numbers.get("weight", 1.0) + numbers.get("bias", 0.0) + layer.get("shift", 0.0)


def _matmul(layer: Any, operands: Any, weights: Any, values: Any) -> torch.Tensor:
    heads = layer.get("heads", 1)
    a, b = (x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(-3, -2) for x in operands)
    y: torch.Tensor = a @ (b.transpose(-2, -1) if layer.get("transpose") == "second" else b) * layer.get("scale", 1.0)
    return y.transpose(-3, -2).flatten(-2)


def _add(layer: Any, operands: Any, weights: Any, values: Any) -> torch.Tensor:
    total: torch.Tensor = sum(operands[1:], operands[0])
    return total


_KINDS: Dict[str, Callable[..., torch.Tensor]] = {
    "linear": _linear, "layer_norm": _layer_norm, "rms_norm": _rms_norm, "attention": _attention, "add": _add,
    "affine": _affine, "matmul": _matmul,
    "multiply": lambda layer, operands, weights, values: operands[0] * operands[1],
    "mask": lambda layer, operands, weights, values: operands[0] * operands[1] * layer.get("scale", 1.0),
    "activation": lambda layer, operands, weights, values: ACTIVATIONS[layer["activation"]](operands[0]),
}
