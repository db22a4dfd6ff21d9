"""hivemind.moe.server.module_backend: a torch module that a server is to host."""
from __future__ import annotations

import functools
import re
from typing import Any, Dict, Optional, Sequence, Tuple

import torch

from ....declaration import Exported
from ....errors import InvalidArgument
from ....exporting import export
from ...utils.tensor_descr import BatchTensorDescriptor

__all__ = ["ModuleBackend"]

_EXAMPLE_ROWS = 3


class ModuleBackend:
    """The expert `name` that begins as `module`: Server(dht, {name: backend}) hosts it, as a block of the server's layers
    (export(): ExportError for what it has none for). args_schema and kwargs_schema describe the inputs. optimizer: an Adam,
    AdamW or SGD of the module's parameters, of one group; None: it does not learn. The module here stays as it is: the
    server's expert is a copy."""

    def __init__(self, name: str, module: torch.nn.Module, *, optimizer: Optional[torch.optim.Optimizer] = None, scheduler: Any = None,
                 args_schema: Optional[Sequence[BatchTensorDescriptor]] = None,
                 kwargs_schema: Optional[Dict[str, BatchTensorDescriptor]] = None, outputs_schema: Any = None,
                 min_batch_size: int = 1, max_batch_size: int = 4096, **_: Any):
        if scheduler is not None:
            raise InvalidArgument("a server's schedules are none, linear and cosine: Server.create(scheduler=...)")
        if optimizer is not None and len(optimizer.param_groups) != 1:
            raise InvalidArgument(f"{name}: an optimizer of {len(optimizer.param_groups)} groups was given; the server's have one")
        self.name, self.module, self.optimizer, self.scheduler = name, module, optimizer, scheduler
        self.args_schema, self.kwargs_schema = tuple(args_schema or ()), dict(kwargs_schema or {})
        self.forward_schema = (self.args_schema, self.kwargs_schema)
        self.outputs_schema = outputs_schema
        self.min_batch_size, self.max_batch_size = min_batch_size, max_batch_size
        positional = [schema.make_zeros(_EXAMPLE_ROWS) for schema in self.args_schema]
        named: Dict[str, Any] = {key: schema.make_zeros(_EXAMPLE_ROWS) for key, schema in self.kwargs_schema.items()}
        self.exported: Exported = export(module, (positional, named), name=re.sub(r"[^\w-]", "_", name))
        if outputs_schema is None:
            self.outputs_schema = [BatchTensorDescriptor.from_tensor(y) for y in self.exported(*positional, *named.values())]

    def __repr__(self) -> str:
        return f"ModuleBackend({self.name}, {self.exported!r})"

    def get_info(self) -> Dict[str, Any]:
        return {"forward_schema": self.forward_schema, "outputs_schema": self.outputs_schema,
                "keyword_names": tuple(self.kwargs_schema)}

    @property
    def optim_cls(self) -> Any:
        """As Server.create takes it."""
        if self.optimizer is None:
            return None
        kind: Any = type(self.optimizer)
        group = {key: value for key, value in self.optimizer.param_groups[0].items() if key not in ("params", "initial_lr")}
        return functools.partial(kind, **group)


def described(backends: Dict[str, ModuleBackend]) -> Tuple[Dict[str, Dict[str, Any]], Dict[str, str]]:
    """The blocks by name, each declaration once, and of each backend the block."""
    blocks: Dict[str, Dict[str, Any]] = {}
    known: Dict[str, str] = {}
    used: Dict[str, str] = {}
    for uid, backend in backends.items():
        content = repr({key: value for key, value in backend.exported.block.items() if key != "name"})
        if content not in known:
            known[content] = f"{backend.exported.name[:20]}-{len(known)}"
            blocks[known[content]] = {**backend.exported.block, "name": known[content]}
        used[uid] = known[content]
    return blocks, used
