"""Tensors between PyTorch and the wire: one frame each, row-major, little-endian, without copies where that is possible."""
from __future__ import annotations

import sys
from typing import Any, Dict, NamedTuple, Sequence, Tuple

import numpy as np
import torch

from . import codecs, messages
from .errors import Internal, InvalidArgument
from .local import Frame

__all__ = ["DTYPE_NAMES", "dtype_number", "torch_dtype", "to_frame", "Described", "describe", "from_frames"]

if sys.byteorder != "little":
    raise ImportError("expertd's Python client needs a little-endian machine")

_NAMES = {
    "FLOAT32": torch.float32, "FLOAT64": torch.float64, "FLOAT16": torch.float16, "BFLOAT16": torch.bfloat16,
    "INT8": torch.int8, "INT16": torch.int16, "INT32": torch.int32, "INT64": torch.int64, "UINT8": torch.uint8,
    "BOOL": torch.bool,
}
_NUMBERS: Dict[torch.dtype, int] = {dtype: messages.server.value("DType", name) for name, dtype in _NAMES.items()}
_DTYPES = {number: dtype for dtype, number in _NUMBERS.items()}
DTYPE_NAMES = {number: str(dtype).replace("torch.", "") for number, dtype in _DTYPES.items()}
# As NumPy has them, to whom bfloat16 is 16 bits.
_ARRAYS = {dtype: np.dtype("i2" if dtype == torch.bfloat16 else DTYPE_NAMES[number]) for dtype, number in _NUMBERS.items()}
MAX_DIMS = 7
# Smaller frames are copied: ZeroMQ hands them out of a buffer that many share, at any address.
COPY_BELOW = 1 << 14


def dtype_number(dtype: torch.dtype) -> int:
    try:
        return _NUMBERS[dtype]
    except KeyError:
        raise InvalidArgument(f"tensors of {dtype} cannot be sent") from None


def torch_dtype(number: int) -> torch.dtype:
    try:
        return _DTYPES[number]
    except KeyError:
        raise Internal(f"the server speaks of a dtype {number} that this client does not know") from None


def to_frame(tensor: torch.Tensor, codec: int = codecs.NONE) -> Tuple[int, Tuple[int, ...], int, memoryview]:
    """The dtype's number, the shape, the codec that it travels in, and the bytes: the tensor's own memory where it is dense,
    and in no codec. It is on the CPU."""
    shape = tuple(tensor.shape)
    if tensor.layout != torch.strided or tensor.is_meta:
        raise InvalidArgument("only dense tensors with data can be sent")
    if not 1 <= len(shape) <= MAX_DIMS:
        raise InvalidArgument(f"a tensor of {len(shape)} dimensions was given; 1 to {MAX_DIMS} can be sent, the first the rows")
    dtype = tensor.dtype
    number = dtype_number(dtype)
    if tensor.requires_grad:
        tensor = tensor.detach()
    if codec != codecs.NONE and dtype == torch.float32:
        encoded = codecs.encode(codec, tensor)
        if encoded is not None:
            return number, shape, codec, memoryview(encoded)
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    if dtype == torch.bfloat16:  # NumPy knows no bfloat16
        tensor = tensor.view(torch.int16)
    try:
        return number, shape, codecs.NONE, memoryview(tensor.numpy())
    except RuntimeError:  # its numbers are the negatives of its memory's, as of a conjugate's imaginary part
        return number, shape, codecs.NONE, memoryview(tensor.resolve_neg().numpy())


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


class Described(NamedTuple):
    """What a reply says of a tensor. `wire`: the dtype as NumPy has it; `nbytes`: of its frame, when it is in no codec."""
    dtype: torch.dtype
    shape: Tuple[int, ...]
    codec: int
    wire: Any
    nbytes: int


def describe(i: int, tensor: Any) -> Described:
    """Of the message of the reply's tensor i; Internal for what no tensor can be."""
    dtype, shape = torch_dtype(tensor.dtype), tuple(tensor.shape)
    if len(shape) > MAX_DIMS:
        raise Internal(f"the reply's tensor {i} has {len(shape)} dimensions")
    if tensor.codec != codecs.NONE and dtype != torch.float32:
        raise Internal(f"the reply's tensor {i} of {dtype} is in codec {tensor.codec}, which is for float32")
    wire = _ARRAYS[dtype]
    return Described(dtype, shape, tensor.codec, wire, _elements(shape) * wire.itemsize)


def from_frames(described: Sequence[Described], frames: Sequence[Any]) -> Tuple[torch.Tensor, ...]:
    """The tensors of a reply; Internal when it contradicts itself. Large ones lie in the memory that ZeroMQ received
    them in."""
    if len(described) != len(frames):
        raise Internal(f"the reply announces {len(described)} tensors and has {len(frames)} frames")
    try:
        return tuple([_from_frame(one, frame) for one, frame in zip(described, frames)])
    except (RuntimeError, TypeError, OverflowError, ValueError) as error:  # shapes that no tensor can have
        raise Internal(f"the reply's tensors cannot be made: {error}") from None


def _from_frame(one: Described, frame: Any) -> torch.Tensor:
    dtype, shape, codec, wire, nbytes = one
    if codec != codecs.NONE:
        return codecs.decode(codec, frame.buffer, shape)
    size = len(frame)
    if size != nbytes:
        raise Internal(f"the reply's tensor of shape {list(shape)} has {size} bytes")
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    # By one of NumPy's operations and one of torch's: behind a large answer nothing is in the caches, and each costs.
    array = np.ndarray(shape, wire, bytearray(frame.buffer) if size < COPY_BELOW and type(frame) is not Frame else frame.buffer)
    if not array.flags.aligned:
        array = array.copy()
    made = torch.from_numpy(array)
    return made.view(torch.bfloat16) if dtype == torch.bfloat16 else made
