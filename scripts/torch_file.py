"""PyTorch's .pt files, read and written with nothing but NumPy: no PyTorch is needed, and none of its versions matters.

A file is a zip archive with a pickle (data.pkl), in which a tensor is a call of one of PyTorch's rebuild functions on a
storage, and an entry data/<key> for each storage; files of PyTorch before 1.6 have the pickle first and the storages
behind it. Unpickling may call any function that a file names. Here the names stand for what is in this module: tensors,
numbers, texts and containers are made, and everything else is refused.
"""
import collections
import io
import os
import pickle
import struct
import zipfile

import numpy

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int64": "<i8", "int32": "<i4",
    "int16": "<i2", "int8": "<i1", "uint8": "<u1", "bool": "<?",
}
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}


class TorchFileError(ValueError):
    """A file that cannot be read; the message names the file and what is wrong."""


# --- what a pickle makes ---------------------------------------------------------------------------------------------


class Name:
    """A global of the pickle that is only passed on: a dtype, a class, a device."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self, *_):
        raise ValueError(f"it calls {self.module}.{self.name}; only tensors, numbers and texts are read")


class Storage:
    """dtype None: bytes, of which the tensor says what they are."""

    def __init__(self, dtype, count):
        self.dtype, self.count, self.content = dtype, count, None


class Tensor:
    def __init__(self, storage, offset, shape, stride, dtype):
        self.storage, self.offset, self.shape, self.stride, self.dtype = storage, offset, shape, stride, dtype

    def array(self):
        """Its values; bfloat16 as float32, which holds them exactly."""
        if self.dtype not in DTYPES:
            raise ValueError(f"only dense real tensors are read, not {self.dtype}")
        numbers = [self.offset, *self.shape, *self.stride]
        if len(self.shape) != len(self.stride) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a tensor's shape and stride are no whole numbers")
        dtype = numpy.dtype(DTYPES[self.dtype])
        content = self.storage.content
        if content is None:
            raise ValueError("a tensor's storage is missing")
        values = numpy.frombuffer(content, dtype=dtype, count=len(content) // dtype.itemsize)
        count = 1
        for dim in self.shape:
            count *= dim
        last = self.offset + sum((dim - 1) * step for dim, step in zip(self.shape, self.stride))
        if count > 0 and (last >= len(values) or count > len(values) * 64):
            raise ValueError("a tensor lies outside of its storage: the file is cut short")
        if count == 0:
            values = numpy.zeros(self.shape, dtype)
        else:
            strides = [step * dtype.itemsize for step in self.stride]
            values = numpy.lib.stride_tricks.as_strided(values[self.offset:], self.shape, strides).copy()
        return values if self.dtype != "bfloat16" else widen(values)


def widen(halves):
    """bfloat16, as the bits of unsigned numbers, to float32."""
    return (halves.astype(numpy.uint32) << 16).view(numpy.float32)


def dtype_of(name, otherwise):
    return name.name if isinstance(name, Name) and name.module == "torch" else otherwise


def rebuild_tensor(storage, offset, shape, stride, *_):
    if not isinstance(storage, Storage):
        raise ValueError("a tensor is made of something that is no storage")
    return Tensor(storage, offset, tuple(shape), tuple(stride), storage.dtype)


def rebuild_tensor_v3(storage, offset, shape, stride, requires_grad, hooks, dtype, *_):
    tensor = rebuild_tensor(storage, offset, shape, stride)
    tensor.dtype = dtype_of(dtype, tensor.dtype)
    return tensor


def rebuild_parameter(data, *_):
    return data


def rebuild_from_type(function, _, arguments, *__):
    if function not in REBUILDS.values():
        raise ValueError("a tensor is made by something that is no rebuild function")
    return function(*arguments)


def rebuild_from_numpy(data, *_):
    array = numpy.ascontiguousarray(data)
    names = {numpy.dtype(code): name for name, code in DTYPES.items() if name != "bfloat16"}
    storage = Storage(names.get(array.dtype, str(array.dtype)), array.size)
    storage.content = array.tobytes()
    strides = tuple(step // array.itemsize for step in array.strides)
    return Tensor(storage, 0, array.shape, strides, storage.dtype)


REBUILDS = {
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): rebuild_parameter,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): rebuild_from_numpy,
    ("torch._utils", "_rebuild_from_type"): rebuild_from_type,
    ("torch._tensor", "_rebuild_from_type_v2"): rebuild_from_type,
    ("torch._tensor", "_rebuild_from_type"): rebuild_from_type,
}
MADE = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("collections", "Counter"): collections.Counter,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *words: words,
    ("torch.serialization", "_get_layout"): str,
    ("_codecs", "encode"): lambda text, encoding="latin1": str(text).encode(encoding),
    ("numpy", "dtype"): numpy.dtype,
}
for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
    MADE[(core, "scalar")] = lambda dtype, content: numpy.frombuffer(content, dtype=dtype, count=1)[0]
    MADE[(core, "_reconstruct")] = lambda *_: numpy.ndarray((0,))
for module in ("builtins", "__builtin__"):
    for kind in (dict, list, tuple, set, frozenset, int, float, bool, str, bytes, bytearray, complex):
        MADE[(module, kind.__name__)] = kind
PASSED_ON = {("numpy", "ndarray"), ("torch.nn.parameter", "Parameter"), ("torch.nn.parameter", "Buffer"),
             ("torch.storage", "UntypedStorage"), ("torch.storage", "TypedStorage"), ("torch.storage", "_LegacyStorage")}


class Unpickler(pickle.Unpickler):
    def __init__(self, source, storages):
        super().__init__(source, encoding="utf-8")
        self.storages = storages  # by key

    def find_class(self, module, name):
        made = REBUILDS.get((module, name)) or MADE.get((module, name))
        if made:
            return made
        if (module, name) in PASSED_ON or module == "torch":
            return Name(module, name)
        raise ValueError(f"it asks for {module}.{name}; only tensors, numbers and texts are read")

    def persistent_load(self, saved):
        if not isinstance(saved, tuple) or len(saved) < 5 or saved[0] != "storage":
            raise ValueError("it refers to something that is no storage")
        _, kind, key, _, count = saved[:5]
        name = getattr(kind, "name", "")
        if key not in self.storages:
            self.storages[key] = Storage(STORAGES.get(name) or (None if "typed" in name.lower() else name), count)
        return self.storages[key]


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path):
    """What the file holds: dicts, lists, numbers, texts, and Tensors. TorchFileError when it cannot be read."""
    with open(path, "rb") as source:
        start = source.read(4)
        source.seek(0)
        try:
            return _read_zip(source) if start == b"PK\x03\x04" else _read_legacy(source, start)
        except ValueError as error:
            raise TorchFileError(f"{path}: {error}") from None
        except Exception as error:  # what zipfile, zlib and pickle raise for damaged bytes is no closed list
            raise TorchFileError(f"{path}: it is no file of PyTorch, or is damaged or cut short ({error})") from None


def _read_zip(source):
    with zipfile.ZipFile(source) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it is a zip archive, but none of PyTorch's (a TorchScript model is not read)")
        prefix = names[0][:-len("data.pkl")]
        if f"{prefix}byteorder" in archive.namelist() and archive.read(f"{prefix}byteorder").strip() != b"little":
            raise ValueError("it was written on a big-endian machine")
        storages = {}
        loaded = Unpickler(io.BytesIO(archive.read(names[0])), storages).load()
        for key, storage in storages.items():
            storage.content = archive.read(f"{prefix}data/{key}")
        return loaded


def _read_legacy(source, start):
    if start[:1] != b"\x80":
        raise ValueError("it is no file of PyTorch, or is damaged or cut short")
    if Unpickler(source, {}).load() != LEGACY_MAGIC:
        raise ValueError("it is a pickle, but none of PyTorch's")
    Unpickler(source, {}).load()  # the version of the format
    if not Unpickler(source, {}).load().get("little_endian", True):
        raise ValueError("it was written on a big-endian machine")
    storages = {}
    loaded = Unpickler(source, storages).load()
    for key in Unpickler(source, {}).load():
        storage = storages[key]
        (count,) = struct.unpack("<q", source.read(8))
        size = numpy.dtype(DTYPES.get(storage.dtype, "<u1")).itemsize
        storage.content = source.read(count * size)
        if len(storage.content) != count * size:
            raise ValueError("it is cut short")
    return loaded


# --- writing ---------------------------------------------------------------------------------------------------------


class Pickler(pickle._Pickler):  # the one in Python: the one in C cannot write names of what is not there
    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, out, blobs):
        super().__init__(out, protocol=2)
        self.blobs = blobs

    def save_name(self, name):
        self.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode())
        self.memoize(name)

    def save_array(self, array):
        kind = next(key for key, dtype in STORAGES.items() if numpy.dtype(DTYPES[dtype]) == array.dtype
                    and dtype != "bfloat16")
        key = str(len(self.blobs))
        self.blobs.append(array.tobytes())
        strides = tuple(int(numpy.prod(array.shape[axis + 1:])) for axis in range(array.ndim))
        self.save(Name("torch._utils", "_rebuild_tensor_v2"))
        self.write(pickle.MARK)
        self.save(("storage", Name("torch", kind), key, "cpu", array.size))
        self.write(pickle.BINPERSID)
        for argument in (0, array.shape, strides, False, collections.OrderedDict()):
            self.save(argument)
        self.write(pickle.TUPLE + pickle.REDUCE)
        self.memoize(array)

    dispatch[Name] = save_name
    dispatch[numpy.ndarray] = save_array


def private(path, flags):
    """For open(): weights are their owner's to read, as in the server's checkpoints."""
    return os.open(path, flags, 0o600)


def write(path, content):
    """Writes what torch.load gives back: dicts, lists, numbers and texts, and each NumPy array as a tensor. Whole or not
    at all."""
    blobs, text = [], io.BytesIO()
    Pickler(text, blobs).dump(content)
    temporary = f"{path}.tmp.{os.getpid()}"
    try:
        with open(temporary, "wb", opener=private) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", text.getvalue())
            archive.writestr("archive/byteorder", "little")
            for key, blob in enumerate(blobs):
                archive.writestr(f"archive/data/{key}", blob)
            archive.writestr("archive/version", "3\n")
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
