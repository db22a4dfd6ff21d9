"""What a server says of an expert and of itself, as plain records."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Tuple

import torch

from .codecs import CODECS
from .tensors import torch_dtype

__all__ = ["Field", "ExpertInfo", "ListEntry", "Pong"]


@dataclass(frozen=True)
class Field:
    """One tensor of a schema; row_shape is the shape without dimension 0, the rows."""
    name: str
    dtype: torch.dtype
    row_shape: Tuple[int, ...]
    codecs: Tuple[str, ...] = ()  # that it may travel in, besides none

    def __str__(self) -> str:
        sizes = ", ".join(["rows", *map(str, self.row_shape)])
        return f"{self.name or 'tensor'}: {str(self.dtype).replace('torch.', '')}[{sizes}]"


@dataclass(frozen=True)
class ExpertInfo:
    """An expert's schemas, settings and counters, at the time of the question."""
    uid: str
    block: str
    forward_schema: Tuple[Field, ...]   # inputs
    outputs_schema: Tuple[Field, ...]
    backward_schema: Tuple[Field, ...]  # inputs, then the gradients of the outputs
    max_batch_size: int                 # rows
    hidden_dim: int
    device: str
    alive: bool
    optimizer: str
    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float
    momentum: float
    clip_norm: float
    schedule: str
    warmup_steps: int
    total_steps: int
    grad_accumulation: int
    update_count: int        # optimizer steps
    examples_processed: int  # rows of applied backward batches
    skipped_steps: int       # for NaN or infinite gradients
    compression: str         # the codec that the server's configuration advises, both ways
    arguments: Dict[str, float] = field(hash=False)  # of the block, beside hidden_dim

    def __getitem__(self, name: str) -> Any:
        """info["keyword_names"], as hivemind's programs have it."""
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None

    @property
    def keyword_names(self) -> Tuple[str, ...]:
        """The inputs' names, in the server's order."""
        return tuple(field.name for field in self.forward_schema)


@dataclass(frozen=True)
class ListEntry:
    """One expert of a server's list."""
    uid: str
    alive: bool
    device: str
    endpoint: str = ""  # of the server's frontend that has it; "": of the one that was asked


@dataclass(frozen=True)
class Pong:
    """A server's answer to a ping."""
    server: str
    software: str
    experts: int
    experts_alive: int
    frontends: Tuple[str, ...] = ()  # endpoints of the server's other frontends, whose experts are not counted here


def _fields(schema: Any) -> Tuple[Field, ...]:
    return tuple(Field(f.name, torch_dtype(f.dtype), tuple(f.row_shape), tuple(_codecs(f.codecs))) for f in schema.tensors)


def _codecs(numbers: Iterable[int]) -> List[str]:
    """By name; those that this client does not know are left out."""
    return [name for name, number in CODECS.items() if number in numbers]


def expert_info(message: Any) -> ExpertInfo:
    schemas: Dict[str, Any] = {name: _fields(getattr(message, name)) for name in ("forward_schema", "outputs_schema", "backward_schema")}
    others: Dict[str, Any] = {"compression": (_codecs([message.compression]) or ["none"])[0],
              "arguments": {argument.name: argument.value for argument in message.arguments}}
    names = [name for name in ExpertInfo.__dataclass_fields__ if name not in schemas and name not in others]
    return ExpertInfo(**schemas, **others, **{name: getattr(message, name) for name in names})
