"""What is known of a trace while it is run, and the names of operations by what they do."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

import torch
from torch import fx

from ..declaration import Source
from ..tracing import inner_path
from .layers import Layers
from .values import Parameter

__all__ = ["Operations", "arguments", "join", "stem_of"]

SAMES = {"contiguous", "clone", "float", "to", "type", "type_as", "double", "dropout", "alpha_dropout", "feature_dropout",
          "dropout_", "feature_alpha_dropout", "alpha_dropout_"}
FORMS = {"view", "reshape", "flatten", "unflatten", "transpose", "swapaxes", "permute", "movedim"}
BY_ELEMENT = {"add", "sub", "mul", "div", "truediv", "true_divide", "neg", "pow", "square", "exp", "tanh", "sigmoid", "erf",
               "relu", "relu_", "gelu", "silu", "silu_", "sqrt", "abs", "abs_", "softplus", "clamp", "clamp_", "hardtanh", "elu",
               "leaky_relu", "mish", "hardswish", "relu6", "iadd", "imul", "isub", "itruediv", "add_", "mul_", "rsub", "multiply",
               "divide", "subtract", "reciprocal", "rsqrt", "logsigmoid", "softsign", "selu", "celu", "hardsigmoid", "tanh_",
               "sigmoid_", "sub_", "div_", "log", "sin", "cos"}
CONSTANTS = {"expand", "expand_as", "ones_like", "zeros_like", "full_like", "new_zeros", "new_ones", "new_full", "new_tensor",
              "new_empty", "to", "type_as", "view_as", "reshape_as"}  # of which a value has the shape or the type alone
VIEWS = {"getitem", "view", "reshape", "unsqueeze", "squeeze", "expand", "expand_as", "flatten", "to", "type_as", "float", "contiguous"}
SUMS, PRODUCTS = {"add", "iadd", "add_"}, {"mul", "imul", "mul_", "multiply"}
DIFFERENCES = {"sub", "subtract", "isub", "sub_"}
QUOTIENTS = {"div", "truediv", "true_divide", "divide", "itruediv", "div_"}


class Operations(fx.Interpreter):
    """Runs the trace with the example inputs, for the sizes and numbers in it. What an operation gives is in `made`."""

    def __init__(self, traced: fx.GraphModule, inputs: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]):
        super().__init__(traced, garbage_collect_values=False)
        self.inputs, self.tensors = inputs, tensors  # tensors: of the module, by name
        self.made: Dict[fx.Node, Any] = {}  # what operations gave; nothing: numbers, sizes
        self.block = Layers(inputs)
        self.computed: Dict[str, torch.Tensor] = {}  # constants that are none of the module's, by the block's names

    def _shape(self, node: Any) -> Tuple[int, ...]:
        return tuple(self.env[node].shape) if isinstance(node, fx.Node) else ()

    def _constants(self, n: fx.Node) -> List[fx.Node]:
        return [node for node in n.all_input_nodes if node not in self.made and isinstance(self.env[node], torch.Tensor)
                and self.env[node].numel() > 1]

    def _constants_said(self, n: fx.Node) -> str:
        for node in self._constants(n):
            path = inner_path(str(node.target)) if node.op == "get_attr" else ""
            return f" of the buffer {path}" if path in self.tensors else " of a constant tensor"
        return ""

    def _of(self, parameter: Parameter) -> torch.Tensor:
        return Source(parameter.name, parameter.begin, parameter.end).of(self.tensors)


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def stem_of(parameter: str, otherwise: str) -> str:
    return parameter.rpartition(".")[0] if parameter.endswith(".weight") else otherwise


def arguments(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> List[Any]:
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]
