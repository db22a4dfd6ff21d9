"""Codecs: float32 tensors in fewer bytes, at a loss (PROTOCOL.md, Codecs, has the formulas and layouts, which are
hivemind's). All is done by whole arrays. Pure functions; any thread."""
from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from .errors import Internal, InvalidArgument

__all__ = ["CODECS", "NONE", "codec_name", "codec_number", "decode", "encode", "frame_bytes"]

# Numbers of the wire, which for hivemind's codecs are its CompressionType's.
CODECS = {"none": 0, "meanstd_16bit": 1, "float16": 2, "quantile_8bit": 3, "uniform_8bit": 4, "blockwise_8bit": 5, "bfloat16": 6}
NONE, MEANSTD, FLOAT16, QUANTILE, UNIFORM, BLOCKWISE, BFLOAT16 = CODECS.values()
_NAMES = {number: name for name, number in CODECS.items()}
CODES, BLOCK, SAMPLE = 256, 4096, 16384
_HALF_MOST, _HALF_CELLS = 65504.0, 32767

Codec = Union[None, int, str]


def codec_number(codec: Codec) -> int:
    """The number of a name in small or capital letters, a number, or None (none). InvalidArgument for what is no codec."""
    found = codec if isinstance(codec, int) else CODECS.get(str(codec or "none").lower())
    if found not in _NAMES:
        raise InvalidArgument(f"{codec!r} is no codec: {', '.join(CODECS)}")
    return int(found)


def codec_name(codec: Codec) -> str:
    return _NAMES[codec_number(codec)]


def frame_bytes(codec: int, elements: int, last: int) -> int:
    """Of a float32 tensor of so many elements, `last` of them in its last dimension."""
    blocks = -(-elements // BLOCK)
    return {NONE: 4 * elements, MEANSTD: 2 * elements + (8 * (elements // last) if last else 0), FLOAT16: 2 * elements,
            BFLOAT16: 2 * elements, QUANTILE: 8 + 4 * CODES + elements, UNIFORM: 8 + 4 * CODES + elements,
            BLOCKWISE: 16 + 4 * (blocks + CODES) + elements}[codec]


def encode(codec: int, tensor: torch.Tensor) -> Optional[Any]:
    """The frame, an array of uint8, of a dense float32 tensor on the CPU. None where it has to travel as it is: the frame would not
    be smaller, or the codec cannot say it (NaN, Inf)."""
    elements, last = tensor.numel(), tensor.shape[-1] if tensor.dim() else 1
    if codec == NONE or frame_bytes(codec, elements, last) >= 4 * elements:
        return None
    with np.errstate(all="ignore"):
        return _ENCODERS[codec](tensor.detach().contiguous().numpy())


def decode(codec: int, frame: Any, shape: Sequence[int]) -> torch.Tensor:
    """The float32 tensor of a frame, which is hostile until checked: Internal says what is wrong with it."""
    elements = 1
    for size in shape:
        elements *= size
    last = shape[-1] if shape else 1
    data = np.frombuffer(frame, np.uint8)
    if codec not in _DECODERS:
        raise Internal(f"codec {codec} is none that this client knows")
    if data.size != frame_bytes(codec, elements, last):
        raise Internal(f"a tensor of shape {list(shape)} in {_NAMES[codec]} has {frame_bytes(codec, elements, last)} bytes, its frame "
                       f"has {data.size}")
    if elements == 0:
        return torch.empty(tuple(shape))
    return torch.from_numpy(_DECODERS[codec](data, elements, last)).reshape(tuple(shape))


Floats = Any  # an array of float32
Bytes = Any


# ---- halves

def _float16(x: Floats) -> Bytes:
    return torch.from_numpy(x).clamp(-_HALF_MOST, _HALF_MOST).to(torch.float16).numpy().reshape(-1).view(np.uint8)


def _of_float16(data: Bytes, elements: int, last: int) -> Floats:
    return data.view("<f2").astype(np.float32)


def _bfloat16(x: Floats) -> Bytes:
    return torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().reshape(-1).view(np.uint8)


def _of_bfloat16(data: Bytes, elements: int, last: int) -> Floats:
    return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _meanstd(x: Floats) -> Optional[Bytes]:
    rows = x.reshape(-1, x.shape[-1])
    mean = rows.mean(axis=1, dtype=np.float64).astype(np.float32)
    centred = rows - mean[:, None]
    deviation = np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64) / rows.shape[1]).astype(np.float32)
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        return None
    deviation = np.maximum(deviation, np.float32(2.0 ** -23))
    centred *= (np.float32(1) / deviation)[:, None]
    return np.concatenate([_float16(centred), mean.view(np.uint8), deviation.view(np.uint8)])


def _of_meanstd(data: Bytes, elements: int, last: int) -> Floats:
    count = elements // last
    mean, deviation = data[2 * elements:].copy().view("<f4").reshape(2, count)
    rows = data[:2 * elements].view("<f2").astype(np.float32).reshape(count, last)
    rows *= deviation[:, None]
    rows += mean[:, None]
    return rows


# ---- codebooks

def _codebook_frame(x: Floats, index: Bytes) -> Bytes:
    """Each number of the codebook is the mean of what fell to it."""
    sums, counts = np.bincount(index, x, CODES), np.bincount(index, minlength=CODES)
    codebook = (sums / np.maximum(counts, 1)).astype(np.float32)
    return np.concatenate([np.array([CODES], np.int64).view(np.uint8), codebook.view(np.uint8), index])


def _uniform(x: Floats) -> Optional[Bytes]:
    flat = x.reshape(-1)
    mean = np.float32(flat.mean(dtype=np.float64))
    if not np.isfinite(mean):
        return None
    centred = flat - mean
    deviation = np.sqrt(np.einsum("i,i->", centred, centred, dtype=np.float64) / (flat.size - 1)) if flat.size > 1 else 0.0
    scale = np.float32(6 * deviation / CODES)
    # A constant, and what is as narrow as that: all are the mean.
    inverse = np.float32(1) / scale if scale >= 2.0 ** -126 and np.isfinite(scale) else np.float32(0)
    centred *= inverse
    index = np.clip(np.rint(centred), -128, 127)
    index += 128
    return _codebook_frame(flat, index.astype(np.uint8))


def _quantile(x: Floats) -> Optional[Bytes]:
    flat = x.reshape(-1)
    if not np.isfinite(flat.sum(dtype=np.float64)):
        return None
    sample = flat
    if flat.size > SAMPLE:  # drawn from as many equal parts: at a fixed distance they might all be of one column
        begins = np.arange(SAMPLE + 1) * flat.size // SAMPLE
        drawn = np.random.default_rng(flat.size).random(SAMPLE)
        sample = flat[begins[:-1] + (drawn * (begins[1:] - begins[:-1])).astype(np.int64)]
    borders: Floats = np.quantile(sample.astype(np.float64), np.arange(1, CODES) / CODES).astype(np.float32)
    return _codebook_frame(flat, np.searchsorted(borders, flat, side="left").astype(np.uint8))


def _codebook(data: Bytes, count: int, begin: int) -> Floats:
    """Whose count is at one place of the frame, and which begins at another."""
    if int(data[count:count + 8].copy().view("<i8")[0]) != CODES:
        raise Internal("a codebook has not 256 numbers")
    codebook = data[begin:begin + 4 * CODES].copy().view("<f4")
    if not np.isfinite(codebook).all():
        raise Internal("a codebook has NaN or Inf")
    return codebook


def _of_codebook(data: Bytes, elements: int, last: int) -> Floats:
    return _codebook(data, 0, 8)[data[8 + 4 * CODES:]]


@lru_cache(maxsize=1)
def _dynamic_map() -> Tuple[Floats, Bytes]:
    """The dynamic map of bitsandbytes (Dettmers et al. 2021), and the nearest of its numbers to each of 65,535 cells of
    -1 ... 1: an odd number, so that 0 is one of them."""
    values = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2 ** decade + 1)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade - 6)
        values += [*middles, *-middles]
    table = np.sort(np.array(values)).astype(np.float32)
    table[0] = -1
    cells = (np.arange(2 * _HALF_CELLS + 1) - _HALF_CELLS) / _HALF_CELLS
    middles = (table[1:].astype(np.float64) + table[:-1].astype(np.float64)) / 2
    return table, np.searchsorted(middles, cells, side="left").astype(np.uint8)


def _blockwise(x: Floats) -> Optional[Bytes]:
    flat, (table, nearest) = x.reshape(-1), _dynamic_map()
    blocks = -(-flat.size // BLOCK)
    padded = flat if flat.size == blocks * BLOCK else np.concatenate([flat, np.zeros(blocks * BLOCK - flat.size, np.float32)])
    padded = padded.reshape(blocks, BLOCK)
    largest = np.maximum(padded.max(axis=1), -padded.min(axis=1))
    if not np.isfinite(largest).all():
        return None
    scaled = padded / np.where(largest > 0, largest, np.float32(1))[:, None]
    scaled += 1
    scaled *= _HALF_CELLS
    scaled += np.float32(0.5)
    index = nearest[scaled.astype(np.int32).reshape(-1)[:flat.size]]
    return np.concatenate([np.array([blocks, CODES], np.int64).view(np.uint8), largest.view(np.uint8), table.view(np.uint8), index])


def _of_blockwise(data: Bytes, elements: int, last: int) -> Floats:
    blocks = -(-elements // BLOCK)
    if int(data[:8].copy().view("<i8")[0]) != blocks:
        raise Internal("a tensor has not one largest value for each 4,096 elements")
    largest = data[16:16 + 4 * blocks].copy().view("<f4")
    if not np.isfinite(largest).all():
        raise Internal("the largest values of blocks have NaN or Inf")
    begin = 16 + 4 * blocks
    values = _codebook(data, 8, begin)[data[begin + 4 * CODES:]]
    for start in range(0, elements, BLOCK):
        values[start:start + BLOCK] *= largest[start // BLOCK]
    return values


_ENCODERS: Dict[int, Callable[[Floats], Optional[Bytes]]] = {
    MEANSTD: _meanstd, FLOAT16: _float16, QUANTILE: _quantile, UNIFORM: _uniform, BLOCKWISE: _blockwise, BFLOAT16: _bfloat16}
_DECODERS: Dict[int, Callable[[Bytes, int, int], Floats]] = {
    MEANSTD: _of_meanstd, FLOAT16: _of_float16, QUANTILE: _of_codebook, UNIFORM: _of_codebook, BLOCKWISE: _of_blockwise,
    BFLOAT16: _of_bfloat16}
