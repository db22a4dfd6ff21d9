"""A torch module becomes a block of the server's layers: torch.fx traces it (tracing.py), each operation of the trace
becomes a layer, a part of one, or the reason why the server cannot compute it (translation/), and in the end the
declaration is computed beside the module."""
from __future__ import annotations

import copy
import inspect
import re
import warnings
from functools import partial
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from .declaration import Exported, Source, evaluate, tensors_of
from .tracing import ExportError, trace
from .translation import DROPOUTS, MASK_DTYPES, Translator

__all__ = ["ExportError", "export"]

INPUT_NAME_MAX, LAYERS_MAX, TENSORS_MAX, BLOCK_NAME_MAX = 31, 64, 8, 31
_CHECK_ROWS = 3


def export(module: nn.Module, example_inputs: Any, *, name: Optional[str] = None,
           input_names: Optional[Sequence[str]] = None) -> Exported:
    """Makes of a module a block that a server computes, trains and saves, with the module's weights.

        mine = expertd.export(MyModule(64), torch.zeros(3, 64))
        with expertd.Server.create(expert_uids=["mine.0"], expert_cls=mine, start=True) as server: ...
        mine.save("/etc/expertd")      # or mine.yaml(), for a server elsewhere

    example_inputs: a tensor, a tuple of them, a dict by keyword, or a pair of both, of any number of rows (dimension 0); their values do
    not matter. float32 (and what is converted to it), int64 and bool. The inputs are named as in the module's forward(),
    or as `input_names` says; `name` is the block's, by default the class's.

    The module may have linear layers, and parts of their results (chunk, split, y[..., :n]) that do not overlap, LayerNorm, RMSNorm, the activations relu, gelu and silu,
    attention over keys (nn.MultiheadAttention, scaled_dot_product_attention, or written with matmul and softmax),
    nn.TransformerEncoderLayer, sums, differences and products of values of one shape, matmul of two values, products with int64 or
    bool inputs, and factors and terms that are Python's numbers, buffers and other constant tensors, or parameters (0.5 * x, x + bias,
    x * gamma, positions), in any Python code that torch.fx can trace. Constants do not train; what of them is in the module's state dict is
    in the expert's. Dropout is what it is at evaluation: nothing. ExportError (a ValueError) for all else, with the module's path.
    What comes out is computed beside the module before it is returned."""
    again = partial(export, example_inputs=example_inputs, name=name or type(module).__name__, input_names=input_names)
    names, keywords, given = _named(module, example_inputs, input_names)
    if len(names) >= TENSORS_MAX:
        raise ExportError("", f"it has {len(names)} inputs; a block has up to {TENSORS_MAX} inputs and outputs together")
    frozen = {parameter_name for parameter_name, p in module.named_parameters() if not p.requires_grad}
    training = [m for m in module.modules() if m.training]
    dropping = [path for path, m in module.named_modules() if isinstance(m, (*DROPOUTS, nn.MultiheadAttention)) and m.training
                and getattr(m, "p", getattr(m, "dropout", 0.0)) > 0]
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors_of(module).values() if t.dtype.is_floating_point):
        module = copy.deepcopy(module).to("cpu", torch.float32)
        training = []
    module.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            with torch.no_grad():
                exported = _exported(module, names, keywords, given, name or type(module).__name__)
            with torch.enable_grad():
                _compare(module, keywords, given, exported)
    finally:
        for m in training:
            m.training = True
    exported.again = again
    fixed = exported.fixed()
    used = {source.name for name, source in exported.sources.items() if name not in fixed}
    if used & frozen and not used <= frozen:
        raise ExportError(sorted(used & frozen)[0], "it does not train, and others do: the server trains all of a block, or none")
    if dropping:
        warnings.warn(f"export: dropout is left out, as at evaluation: {', '.join(path or 'the module itself' for path in dropping)}",
                      stacklevel=2)
    return exported


def _named(module: nn.Module, example_inputs: Any, input_names: Optional[Sequence[str]]
           ) -> Tuple[List[str], List[str], Dict[str, torch.Tensor]]:
    """The inputs' names, those of them that are given by keyword, and random inputs of that kind by name."""
    by_name: Mapping[str, Any] = {}
    if isinstance(example_inputs, Mapping):
        positional, by_name = [], example_inputs
    elif isinstance(example_inputs, torch.Tensor):
        positional = [example_inputs]
    elif len(example_inputs) == 2 and isinstance(example_inputs[1], Mapping):
        positional, by_name = list(example_inputs[0]), example_inputs[1]
    else:
        positional = list(example_inputs)
    parameters = [p for p in inspect.signature(module.forward).parameters.values()
                  if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) > len(parameters) and not input_names:
        names = [f"input{i}" for i in range(len(positional))]
    else:
        names = [p.name for p in parameters[:len(positional)]]
    names += list(by_name)
    if input_names is not None:
        if len(input_names) != len(names):
            raise ValueError(f"{len(input_names)} input_names were given for {len(names)} inputs")
        names = list(input_names)
    examples = [*positional, *by_name.values()]
    for name, example in zip(names, examples):
        if not isinstance(example, torch.Tensor) or example.dim() < 1:
            raise ExportError("", f"the input {name} is a {type(example).__name__}: expected a tensor of [rows, ...]")
        if not (example.dtype.is_floating_point or example.dtype in MASK_DTYPES):
            raise ExportError("", f"the input {name} is {example.dtype}: the server's blocks read float32, int64 and bool")
        if not name.isidentifier() or len(name) > INPUT_NAME_MAX:
            raise ValueError(f"{name!r}: an input's name is an identifier of up to {INPUT_NAME_MAX} letters")
    if not examples:
        raise ExportError("", "it has no inputs")
    return names, list(by_name), {n: _random(e, _CHECK_ROWS) for n, e in zip(names, examples)}


def _random(example: torch.Tensor, rows: int) -> torch.Tensor:
    shape = (rows, *example.shape[1:])
    if example.dtype.is_floating_point:
        return torch.randn(shape)
    # Of a mask of keys, not all are left out.
    drawn = torch.randint(0, 2, shape, dtype=torch.int64)
    if len(shape) > 1:
        drawn[:, 0] = 0
    return drawn.to(example.dtype)


def _exported(module: nn.Module, names: Sequence[str], keywords: Sequence[str], inputs: Dict[str, torch.Tensor],
              name: str) -> Exported:
    traced, paths = trace(module, names, keywords)
    translator = Translator(traced, paths, inputs, tensors_of(module))
    try:
        translator.run(*(inputs[n] for n in names))
    except ExportError as error:  # to which torch.fx has added where it was
        raise ExportError(error.path, error.reason) from None
    except Exception as error:
        raise ExportError(translator.path, f"it fails: {_sentence(error)}") from error
    layers = list(translator.block.layers.values())
    read = {operand for layer in layers for operand in [*layer.get("inputs", [layer.get("input")]), layer.get("mask")]}
    unread = [n for n in names if n not in read]
    if unread:
        raise ExportError("", f"nothing of the outputs depends on the input {unread[0]}")
    outputs = {value for _, value in translator.block.outputs}
    while True:  # what nothing reads
        idle = [layer for layer in layers if layer["name"] not in outputs and not any(
            layer["name"] in other.get("inputs", [other.get("input")]) for other in layers)]
        if not idle:
            break
        layers = [layer for layer in layers if layer not in idle]
    if len(layers) > LAYERS_MAX:
        raise ExportError("", f"it has {len(layers)} layers; a block has up to {LAYERS_MAX}")
    if len(names) + len(outputs) > TENSORS_MAX:
        raise ExportError("", f"it has {len(names)} inputs and {len(outputs)} outputs; a block has up to {TENSORS_MAX} together")
    block = {
        "name": re.sub(r"[^\w.-]", "_", name)[:BLOCK_NAME_MAX],
        "inputs": [{"name": n, "shape": list(x.shape[1:]), **({"dtype": MASK_DTYPES[x.dtype]} if x.dtype in MASK_DTYPES else {})}
                   for n, x in inputs.items()],
        "layers": layers,
        "outputs": [{"name": n, "value": value} for n, value in translator.block.outputs],
    }
    width = next((x.shape[-1] for x in inputs.values() if x.dtype not in MASK_DTYPES and x.dim() > 1), 1)
    kept = {layer["name"] for layer in layers}
    sources = {parameter: source for parameter, source in translator.block.sources.items()
               if any(parameter in (layer.get("weight_name"), layer.get("bias_name"), layer["name"] + ".weight",
                                    layer["name"] + ".bias") for layer in layers if layer["name"] in kept)}
    tensors = tensors_of(module)
    of_module = {parameter: source for parameter, source in sources.items() if source.name}
    _refuse_overlaps(of_module, tensors)
    weights = {parameter: (source.of(tensors) if source.name else translator.computed[parameter]).detach().contiguous().clone()
               for parameter, source in sources.items()}
    used = {source.name: 0 for source in of_module.values()}
    for source in of_module.values():
        used[source.name] += len(tensors[source.name]) if source.end is None else source.end - source.begin
    rest = {name: tensors[name].detach().clone() for name, rows in used.items() if rows < len(tensors[name])}
    constants = [name for name in tensors if name not in dict(module.named_parameters()) and name not in used]
    rest.update({name: tensors[name].detach().clone() for name in constants})  # what became numbers
    shapes = {source.name: tuple(tensors[source.name].shape) for source in of_module.values() if source.shape is not None}
    return Exported(block, width, sources, weights, rest, shapes)


def _refuse_overlaps(sources: Mapping[str, Source], tensors: Mapping[str, torch.Tensor]) -> None:
    last: Dict[str, int] = {}
    for source in sorted(sources.values(), key=lambda one: (one.name, one.begin)):
        if source.begin < last.get(source.name, 0):
            raise ExportError(source.name.rpartition(".")[0], "its result is read whole and in part, or in parts that overlap: each of the "
                              "server's layers has weights of its own")
        last[source.name] = len(tensors[source.name]) if source.end is None else source.end


def _sentence(error: Exception) -> str:
    """The error's own: torch.fx puts where it was behind it."""
    text = str(error.args[0]) if error.args else ""
    return text.strip("'\"").split("\n")[0] or repr(error)


def _compare(module: nn.Module, keywords: Sequence[str], inputs: Mapping[str, torch.Tensor], exported: Exported) -> None:
    """The declaration against the module, results and gradients, with another number of rows, by which it could go."""
    given = [_random(x, _CHECK_ROWS + 2) for x in inputs.values()]
    theirs, ours = ([x.clone().requires_grad_(x.dtype.is_floating_point) for x in given] for _ in range(2))
    positional = len(given) - len(keywords)
    try:
        result = module(*theirs[:positional], **dict(zip(keywords, theirs[positional:])))
    except Exception as error:
        raise ExportError("", f"it fails with another number of rows: {_sentence(error)}") from error
    expected = list(result.values()) if isinstance(result, dict) else [result] if isinstance(result, torch.Tensor) else list(result)
    weights = {name: tensor.clone().requires_grad_() for name, tensor in exported.weights.items()}
    found = evaluate(exported.block, weights, ours)
    for output, mine, other in zip(exported.block["outputs"], found, expected):
        if mine.shape != other.shape or not _close(mine, other):
            raise ExportError("", f"the server's layers would not compute {output['name']} as the module does: does it depend on "
                              "other rows, on their number, or on values?")
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    weighted = [(mine, other, torch.randn_like(mine)) for mine, other in zip(found, expected)]
    if not all(other.requires_grad for other in expected):
        raise ExportError("", "an output has no gradient: torch.no_grad() or detach()")
    floats = [i for i, x in enumerate(theirs) if x.requires_grad]
    gradients = torch.autograd.grad([(other * w).sum() for _, other, w in weighted], [*(theirs[i] for i in floats), *parameters.values()],
                                    allow_unused=True)
    mine_too = torch.autograd.grad([(mine * w).sum() for mine, _, w in weighted], [*(ours[i] for i in floats), *weights.values()],
                                   allow_unused=True)
    by_parameter = dict(zip(parameters, gradients[len(floats):]))
    pairs = list(zip(mine_too, gradients[:len(floats)]))
    for gradient, source in zip(mine_too[len(floats):], (exported.sources[name] for name in weights)):
        whole = by_parameter.get(source.name)
        if source.name in parameters:
            pairs.append((gradient, None if whole is None else source.of({source.name: whole})))
    if not all((a is None and b is None) or (a is not None and b is not None and _close(a, b)) for a, b in pairs):
        raise ExportError("", "the server's layers would not have the module's gradients: does it detach(), or compute a part "
                          "under torch.no_grad()?")


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b.float(), rtol=1e-3, atol=1e-4 * (1 + float(b.abs().max())))
