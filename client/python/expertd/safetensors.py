"""Safetensors files, which the server takes as `weights` and writes as checkpoints: the length of the header (8 bytes,
little-endian), the header (JSON: name to dtype, shape and offsets in what follows), the tensors' bytes."""
from __future__ import annotations

import json
import os
import struct
from typing import Any, Dict, List, Mapping, Optional

import torch

__all__ = ["load_tensors", "save_tensors"]

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
          torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_HEADER_LIMIT = 100_000_000
# What is taken for such a file at times, by how it begins.
_OTHERS = ((b"version https://git-lfs", "it is a Git LFS pointer, whose file was never fetched (git lfs pull)"),
           (b"PK\3\4", "it is a zip archive, as PyTorch's .pt are (torch.load)"),
           (b"\x80\2", "it is a pickle, as PyTorch's .pt are (torch.load)"), (b"GGUF", "it is a GGUF file"))


class _Tensors(Dict[str, torch.Tensor]):
    """A file's tensors. It may have others, of dtypes that PyTorch has no name for here: they spoil nothing until one is
    asked for."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.unreadable: Dict[str, str] = {}  # their dtypes

    def __missing__(self, name: str) -> torch.Tensor:
        if name in self.unreadable:
            raise ValueError(f"{self.path}: {name}: tensors of dtype {self.unreadable[name]} cannot be read")
        raise KeyError(name)


def save_tensors(path: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes them, whole or not at all: readers see the old file or the new one. ValueError for a dtype that the format
    has no name for."""
    header: Dict[str, Any] = {}
    blobs: List[Any] = []
    offset = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise ValueError(f"{name}: tensors of {tensor.dtype} cannot be written")
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        blob = flat.view(torch.uint8).numpy() if flat.numel() else b""
        end = offset + flat.numel() * flat.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        blobs.append(blob)
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of 8
    temporary = f"{path}.tmp.{os.getpid()}"
    try:
        # Weights are their owner's to read, as in the server's checkpoints.
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for blob in blobs:
                out.write(blob)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def load_tensors(path: str) -> Dict[str, torch.Tensor]:
    """The tensors of a file by name, an expert's checkpoint for example; ValueError when it contradicts itself. One of a
    dtype that cannot be read is not among them, and ValueError where it is asked for by [name]."""
    with open(path, "rb") as source:
        content = bytearray(source.read())
    if len(content) < 8:
        raise ValueError(f"{path}: too short for a safetensors file")
    (length,) = struct.unpack_from("<Q", content)
    if length > min(_HEADER_LIMIT, len(content) - 8):
        raise ValueError(f"{path}: {_other(content, length)}")
    try:
        header = json.loads(bytes(content[8:8 + length]))
    except ValueError as error:
        raise ValueError(f"{path}: the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path}: the header is no JSON object")
    header.pop("__metadata__", None)
    tensors = _Tensors(path)
    for name, entry in header.items():
        tensor = _tensor(path, name, entry, content, 8 + length)
        if tensor is None:
            tensors.unreadable[name] = entry["dtype"]
        else:
            tensors[name] = tensor
    return tensors


def _other(content: bytearray, length: int) -> str:
    """What a file is whose header's length cannot be."""
    for start, what in _OTHERS:
        if content.startswith(start):
            return what
    if content.lstrip()[:1] == b"{":
        return ("it is the index of a model in several files (shards): give those that it names" if b'"weight_map"' in content
                else "it is JSON text")
    return f"no safetensors file, or not whole: its header would have {length} bytes"


def _tensor(path: str, name: str, entry: Any, content: bytearray, start: int) -> Optional[torch.Tensor]:
    """None: of a dtype that cannot be read."""
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(code, str):
            raise ValueError(f"its dtype is {code!r}")
        count = 1
        for size in shape:
            if type(size) is not int or size < 0:
                raise ValueError(f"a dimension is {size!r}")
            count *= size
        if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= len(content) - start:
            raise ValueError(f"its offsets {begin} to {end} lie outside of the file")
    except KeyError as error:
        raise ValueError(f"{path}: {name}: it has no {error}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {name}: {error}") from None
    dtype = _DTYPES.get(code)
    if dtype is None:
        return None
    if end - begin != count * torch.empty((), dtype=dtype).element_size():
        raise ValueError(f"{path}: {name}: {end - begin} bytes for the shape {shape} of {code}")
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content[start + begin:start + end]), dtype=dtype).reshape(shape)
