"""Safetensors files, written and read with nothing but NumPy: what the maintainers' scripts share.

The format: the length of the header (8 bytes, little-endian), the header (JSON: name -> dtype, shape and the tensor's
offsets in what follows), then the tensors' bytes one behind the other.
"""
import json
import os
import struct

import numpy

DTYPES = {
    "F64": numpy.float64, "F32": numpy.float32, "F16": numpy.float16, "I64": numpy.int64, "I32": numpy.int32,
    "I16": numpy.int16, "I8": numpy.int8, "U8": numpy.uint8, "BOOL": numpy.bool_,
}
NAMES = {numpy.dtype(dtype): name for name, dtype in DTYPES.items()}
HEADER_LIMIT = 100_000_000
# What is taken for such a file at times, by how it begins.
OTHERS = ((b"version https://git-lfs", "it is a Git LFS pointer, whose file was never fetched (git lfs pull)"),
          (b"PK\3\4", "it is a zip archive, as PyTorch's .pt are"), (b"\x80\2", "it is a pickle, as PyTorch's .pt are"))


class TensorFileError(ValueError):
    """A file that is not what the format says; the message names what is wrong."""


def private(path, flags):
    """For open(): weights are their owner's to read, as in the server's checkpoints."""
    return os.open(path, flags, 0o600)


def write(path, tensors, metadata=None):
    """Writes {name: array}, whole or not at all: readers see the old file or the new one."""
    header, blobs, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = {key: str(value) for key, value in metadata.items()}
    for name, array in tensors.items():
        blob = numpy.asarray(array, order="C")
        if blob.dtype not in NAMES:
            raise TensorFileError(f"{name}: no safetensors name for dtype {blob.dtype}")
        end = offset + blob.nbytes
        header[name] = {"dtype": NAMES[blob.dtype], "shape": list(blob.shape), "data_offsets": [offset, end]}
        blobs.append(blob)
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of 8
    temporary = f"{path}.tmp.{os.getpid()}"
    try:
        with open(temporary, "wb", opener=private) as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for blob in blobs:
                out.write(blob.tobytes())
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def read(path):
    """({name: array}, metadata) of a file; TensorFileError when it contradicts itself."""
    with open(path, "rb") as source:
        content = source.read()
    if len(content) < 8:
        raise TensorFileError(f"{path}: too short for a safetensors file")
    (length,) = struct.unpack_from("<Q", content)
    if length > min(HEADER_LIMIT, len(content) - 8):
        raise TensorFileError(f"{path}: {other(content, length)}")
    try:
        header = json.loads(content[8:8 + length])
    except ValueError as error:
        raise TensorFileError(f"{path}: the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise TensorFileError(f"{path}: the header is no JSON object")
    metadata = header.pop("__metadata__", {})
    body = content[8 + length:]
    return {name: _tensor(path, name, entry, body) for name, entry in header.items()}, metadata


def other(content, length):
    """What a file is whose header's length cannot be. Only there: a header of 640 bytes begins as a pickle does."""
    for start, what in OTHERS:
        if content.startswith(start):
            return what
    if content.lstrip()[:1] == b"{":
        shards = b'"weight_map"' in content
        return ("it is the index of a model in several files (shards): give the one that has the tensors" if shards else
                "it is JSON text")
    return f"the header's length ({length}) is more than the file holds"


def _tensor(path, name, entry, body):
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if code != "BF16" and code not in DTYPES:
            raise TensorFileError(f"{path}: {name}: tensors of dtype {code} cannot be converted")
        dtype = numpy.dtype("<u2" if code == "BF16" else DTYPES[code])
        count = 1
        for dim in shape:
            if type(dim) is not int or dim < 0:
                raise ValueError(f"a dimension is {dim!r}")
            count *= dim
    except TensorFileError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise TensorFileError(f"{path}: {name}: not a tensor's entry: {error!r}") from None
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= len(body):
        raise TensorFileError(f"{path}: {name}: offsets {begin}..{end} lie outside of the file")
    if end - begin != count * dtype.itemsize:
        raise TensorFileError(f"{path}: {name}: {end - begin} bytes for shape {shape} of {entry['dtype']}")
    values = numpy.frombuffer(body[begin:end], dtype=dtype).reshape(shape)
    # NumPy has no bfloat16: float32 holds it exactly.
    return (values.astype(numpy.uint32) << 16).view(numpy.float32) if code == "BF16" else values
