"""hivemind.utils.tensor_descr."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import torch

from ...info import Field

__all__ = ["BatchTensorDescriptor"]


@dataclass(frozen=True, init=False)
class BatchTensorDescriptor:
    """A tensor of any number of rows: size[0] is None."""
    size: Tuple[Optional[int], ...]
    dtype: torch.dtype

    def __init__(self, *row_shape: int, dtype: torch.dtype = torch.float32):
        object.__setattr__(self, "size", (None, *row_shape))
        object.__setattr__(self, "dtype", dtype)

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor) -> "BatchTensorDescriptor":
        return cls(*tensor.shape[1:], dtype=tensor.dtype)

    @classmethod
    def from_field(cls, field: Field) -> "BatchTensorDescriptor":
        """Of a schema's tensor (ExpertInfo.forward_schema)."""
        return cls(*field.row_shape, dtype=field.dtype)

    def make_zeros(self, rows: int, device: Optional[torch.device] = None) -> torch.Tensor:
        return torch.zeros(rows, *(size or 0 for size in self.size[1:]), dtype=self.dtype, device=device)
