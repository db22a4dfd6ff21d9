#!/usr/bin/python3
# timeout: 600
# once: Python alone
"""scripts/convert-state-dict: there and back gives the same weights and the same training; files of every version of
PyTorch are read; what cannot be converted is refused, or said, with the right file's name. No PyTorch is needed: what it
would write is pickled here by its own names. Where there is one, it reads and writes as well."""
import collections
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import types
import zipfile

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))

try:
    import numpy
except ImportError as missing:
    print(f"skipped: {missing} (Debian: python3-numpy)")
    sys.exit(77)
import tensor_file
import torch_file

SCRIPT = os.path.join(ROOT, "scripts/convert-state-dict")


def load_script():
    loader = importlib.machinery.SourceFileLoader("convert_state_dict", SCRIPT)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("convert_state_dict", loader))
    loader.exec_module(module)
    return module


script = load_script()


def convert(*arguments):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = [SCRIPT, *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = script.main()
        except SystemExit as usage:
            code = usage.code
    return types.SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def expect(condition, what):
    if not condition:
        print(f"FAILED: {what}")
        sys.exit(1)


# --- files as PyTorch writes them ------------------------------------------------------------------------------------

KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "i4": "IntStorage",
         "u1": "ByteStorage", "u2": "BFloat16Storage", "b1": "BoolStorage"}


def stub(module, name):
    """Something that pickles as module.name."""
    where = sys.modules.setdefault(module, types.ModuleType(module))
    made = types.FunctionType((lambda *_: None).__code__, {}, name)
    made.__module__, made.__qualname__ = module, name
    setattr(where, name, made)
    return made


class Storage:
    def __init__(self, array, kind):
        self.content, self.kind, self.count = array.tobytes(), kind, array.size


class Bfloat16:
    def __init__(self, array):  # float32, cut
        self.bits = (array.view(numpy.uint32) >> 16).astype(numpy.uint16)


class TorchPickler(pickle.Pickler):
    def __init__(self, out, flavour, legacy=False):
        super().__init__(out, protocol=2)
        self.flavour, self.legacy, self.storages = flavour, legacy, []

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.storages.append(value)
        known = ("storage", stub(*value.kind), str(len(self.storages) - 1), "cpu", value.count)
        return known + (None,) if self.legacy else known

    def reducer_override(self, value):
        if isinstance(value, Bfloat16):
            value = value.bits
        if not isinstance(value, numpy.ndarray) or self.flavour == "none":
            return NotImplemented
        if value.base is None:
            value = numpy.ascontiguousarray(value)
        whole = value.base if value.base is not None and value.base.dtype == value.dtype else value
        strides = tuple(step // value.itemsize for step in value.strides)
        kind = ("torch", KINDS[value.dtype.str[1:]])
        arguments = (value.shape, strides, False, collections.OrderedDict())
        v2 = (stub("torch._utils", "_rebuild_tensor_v2"), (Storage(whole, kind), 0, *arguments))
        if self.flavour == "v3":
            untyped = Storage(whole, ("torch.storage", "UntypedStorage"))
            return stub("torch._utils", "_rebuild_tensor_v3"), (untyped, 0, *arguments, stub("torch", "float32"))
        if self.flavour == "parameter":
            return (stub("torch._utils", "_rebuild_parameter_with_state"),
                    (Ready(v2), True, collections.OrderedDict(), {"tag": 1}))
        if self.flavour == "type":
            return (stub("torch._tensor", "_rebuild_from_type_v2"),
                    (v2[0], stub("torch.nn.parameter", "Parameter"), v2[1], {}))
        if self.flavour == "numpy":
            return (stub("torch._utils", "_rebuild_device_tensor_from_numpy"),
                    (Plain(value), stub("torch", "float32"), "cpu", False))
        return v2


class Ready:
    def __init__(self, reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


class Plain:
    """A NumPy array as NumPy pickles it."""

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        return self.array.__reduce__()


def save(content, path, flavour="v2"):
    text = io.BytesIO()
    pickler = TorchPickler(text, flavour)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("name/data.pkl", text.getvalue())
        archive.writestr("name/byteorder", "little")
        for key, storage in enumerate(pickler.storages):
            archive.writestr(f"name/data/{key}", storage.content)
        archive.writestr("name/version", "3\n")


def save_legacy(content, path):
    with open(path, "wb") as out:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
            pickle.dump(part, out, protocol=2)
        pickler = TorchPickler(out, "v2", legacy=True)
        pickler.dump(content)
        pickle.dump([str(key) for key in range(len(pickler.storages))], out, protocol=2)
        for storage in pickler.storages:
            out.write(struct.pack("<q", storage.count) + storage.content)


# --- tests -----------------------------------------------------------------------------------------------------------


def expert_state(hidden):
    random = numpy.random.default_rng(3)
    normal = lambda *shape: random.standard_normal(shape).astype(numpy.float32)  # noqa: E731
    return collections.OrderedDict([
        ("ffn.weight", normal(4 * hidden, hidden)), ("ffn.bias", normal(4 * hidden)),
        ("ffn_output.weight", normal(4 * hidden, hidden).T),  # not contiguous
        ("ffn_output.bias", normal(hidden)), ("layer_norm.weight", numpy.ones(hidden, numpy.float32)),
        ("layer_norm.bias", numpy.zeros(hidden, numpy.float32))])


def same(state, arrays):
    return list(state) == list(arrays) and all(numpy.array_equal(state[name], arrays[name]) for name in state)


def read_back(path):
    def plain(value):
        if isinstance(value, torch_file.Tensor):
            return value.array()
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list) else value
    return plain(torch_file.read(path))


def test_every_version_is_read(folder):
    state = expert_state(24)
    for flavour in ("v2", "v3", "parameter", "type", "numpy", "legacy"):
        source, ours = f"{folder}/{flavour}.pt", f"{folder}/{flavour}.safetensors"
        if flavour == "legacy":
            save_legacy(state, source)
        else:
            save(state, source, flavour)
        done = convert(source, ours)
        expect(done.returncode == 0, f"{flavour}: {done.stderr}")
        expect(same(state, tensor_file.read(ours)[0]), f"{flavour}: the weights are the same in our file")


def test_round_trips(folder):
    state = expert_state(24)
    groups = [{"params": list(range(6)), "lr": 0.1, "momentum": 0}]
    shapes = {
        "plain": state,
        "module": {"module": state, "optimizer": {"state": {}, "param_groups": groups}},
        "model": {"stats": {"updates": 3, "examples_processed": 96}, "model": state, "scheduler": {}},
        "full": {"full_state": {"model": state, "optimizer": {"state": {}, "param_groups": groups}}},
        "full_plain": {"full_state": state},
        "parallel": {"module": {f"module.{name}": tensor for name, tensor in state.items()}},
        "compiled": {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
    }
    for name, content in shapes.items():
        source, ours, back = (f"{folder}/{name}{end}" for end in (".pt", ".safetensors", ".back.pt"))
        save(content, source)
        done = convert(source, ours)
        expect(done.returncode == 0, f"{name} to safetensors: {done.stderr}")
        expect(same(state, tensor_file.read(ours)[0]), f"{name}: the weights are the same in our file")
        done = convert(ours, back, "--wrap", "module")
        expect(done.returncode == 0, f"{name} back: {done.stderr}")
        expect(same(state, read_back(back)["module"]), f"{name}: there and back is the same")


def optimizer_state(state, kind, steps):
    random = numpy.random.default_rng(5)
    states = {}
    for index, tensor in enumerate(state.values()):
        moment = lambda: abs(random.standard_normal(tensor.shape)).astype(numpy.float32)  # noqa: B023,E731
        if kind != "sgd":
            states[index] = {"step": numpy.array(float(steps), numpy.float32), "exp_avg": moment(), "exp_avg_sq": moment()}
        if kind == "amsgrad":
            states[index]["max_exp_avg_sq"] = moment()
        if kind == "sgd":
            states[index] = {"momentum_buffer": moment()}
    return {"state": states, "param_groups": [{"params": list(range(len(state))), "lr": 1e-3}]}


def test_optimizer_state(folder):
    """State, Adam's t and the schedule's position go there and back."""
    state = expert_state(6)
    for kind in ("adam", "amsgrad", "sgd"):
        optimizer = optimizer_state(state, kind, 7)
        content = {"module": state, "optimizer": optimizer, "scheduler": {"last_epoch": 7, "_step_count": 8}}
        save(content, f"{folder}/{kind}.pt")
        done = convert(f"{folder}/{kind}.pt", f"{folder}/{kind}.safetensors")
        expect(done.returncode == 0 and not done.stderr, f"{kind}: {done.stderr}")
        arrays, metadata = tensor_file.read(f"{folder}/{kind}.safetensors")
        expect(metadata["update_count"] == "7", f"{kind}: counters {metadata}")
        first = {"adam": "exp_avg", "amsgrad": "max_exp_avg_sq", "sgd": "momentum_buffer"}[kind]
        expect(numpy.array_equal(arrays[f"optimizer.{first}.ffn.weight"], optimizer["state"][0][first]), kind)
        done = convert(f"{folder}/{kind}.safetensors", f"{folder}/{kind}.back.pt", "--wrap", "module")
        expect(done.returncode == 0, f"{kind} back: {done.stderr}")
        back = read_back(f"{folder}/{kind}.back.pt")
        expect(back["scheduler"]["last_epoch"] == 7, f"{kind}: the schedule's position")
        for index, mine in optimizer["state"].items():
            expect(all(numpy.array_equal(back["optimizer"]["state"][index][key], value) for key, value in mine.items()),
                   f"{kind}: the state of {index} comes back")
        done = convert(f"{folder}/{kind}.pt", f"{folder}/{kind}.safetensors", "--weights-only")
        arrays, metadata = tensor_file.read(f"{folder}/{kind}.safetensors")
        expect(same(state, arrays) and "update_count" not in metadata, f"{kind}: --weights-only")


def test_what_the_server_has_not_is_said(folder):
    state, source = expert_state(6), f"{folder}/adam.pt"
    optimizer = optimizer_state(state, "adam", 3)

    def attempt(change, *options):
        other = pickle.loads(pickle.dumps(optimizer))
        change(other)
        save({"module": state, "optimizer": other}, source)
        return convert(source, f"{folder}/o.safetensors", *options)

    done = attempt(lambda other: other["param_groups"][0].update(amsgrad=True))
    expect(done.returncode == 0 and "amsgrad: true" in done.stderr, f"amsgrad: {done.stderr}")
    done = attempt(lambda other: other["param_groups"][0].update(nesterov=True))
    expect(done.returncode == 0 and "nesterov" in done.stderr, f"nesterov: {done.stderr}")
    done = attempt(lambda other: other["state"][2].update(square_avg=numpy.ones(3, numpy.float32)))
    expect(done.returncode == 1 and "square_avg" in done.stderr, f"another optimizer's state: {done.stderr}")
    done = attempt(lambda other: other["param_groups"][0].update(weight_decay=0.01))
    expect(done.returncode == 0 and "weight_decay" in done.stderr, f"weight decay: {done.stderr}")
    done = attempt(lambda other: other["param_groups"][0].update(nesterov=True))
    expect(done.returncode == 0 and "no nesterov" in done.stderr, f"nesterov: {done.stderr}")
    done = attempt(lambda other: other["param_groups"][0].update(params=[0, 1]))
    expect(done.returncode == 1 and "2 parameters" in done.stderr, f"too few parameters: {done.stderr}")
    save({"module": state, "optimizer": optimizer, "scheduler": {"last_epoch": 9}}, source)
    done = convert(source, f"{folder}/o.safetensors")
    expect(done.returncode == 0 and "differently" in done.stderr, f"two counts: {done.stderr}")


def test_prefix_and_precision(folder):
    state = {f"experts.0.{name}": tensor.astype(numpy.float64) for name, tensor in expert_state(8).items()}
    state["front.weight"] = numpy.zeros((8, 8), numpy.float32)
    save(state, f"{folder}/all.pt")
    done = convert(f"{folder}/all.pt", f"{folder}/one.safetensors", "--prefix", "experts.0.")
    expect(done.returncode == 0, done.stderr)
    arrays, _ = tensor_file.read(f"{folder}/one.safetensors")
    expect(same(expert_state(8), arrays), "one expert out of a larger model, in float32")
    done = convert(f"{folder}/all.pt", f"{folder}/none.safetensors", "--prefix", "experts.7.")
    expect(done.returncode == 1 and "experts.0.ffn.bias" in done.stderr, "a prefix that is not there lists what is")
    expect(not os.path.exists(f"{folder}/none.safetensors"), "nothing is written after an error")
    # bfloat16, in both directions: no type of NumPy's, but float32 holds it exactly.
    values = numpy.array([1, -2.5, 3e38, 1e-38], numpy.float32)
    cut = (values.view(numpy.uint32) & 0xFFFF0000).view(numpy.float32)
    save({"a": Bfloat16(values)}, f"{folder}/bf16.pt")
    done = convert(f"{folder}/bf16.pt", f"{folder}/bf16.safetensors")
    expect(done.returncode == 0, f"bfloat16 of PyTorch: {done.stderr}")
    expect(numpy.array_equal(tensor_file.read(f"{folder}/bf16.safetensors")[0]["a"], cut), "bfloat16 of PyTorch")
    blob = (values.view(numpy.uint32) >> 16).astype("<u2").tobytes()
    with open(f"{folder}/bf.safetensors", "wb") as out:
        out.write(header('{"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}') + blob)
    done = convert(f"{folder}/bf.safetensors", f"{folder}/bf.pt")
    expect(done.returncode == 0, f"bfloat16 of safetensors: {done.stderr}")
    expect(numpy.array_equal(read_back(f"{folder}/bf.pt")["a"], cut), "bfloat16 of safetensors")


def test_fixture(folder):
    fixture = os.path.join(ROOT, "examples/data/digits-experts/ffn.0.0.safetensors")
    command = ["/usr/bin/python3", "-B", SCRIPT, fixture, f"{folder}/f.pt"]  # as a person runs it
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    expect(done.returncode == 0, f"the shipped expert becomes a state_dict: {done.stderr}")
    expect(read_back(f"{folder}/f.pt")["ffn.weight"].shape == (256, 64), "with PyTorch's shapes")
    # Without NumPy it is a sentence, and no traceback.
    os.mkdir(f"{folder}/without")
    with open(f"{folder}/without/numpy.py", "w", encoding="utf-8") as out:
        out.write("raise ImportError('none')")
    done = subprocess.run(command, capture_output=True, text=True, timeout=500,
                          env={**os.environ, "PYTHONPATH": f"{folder}/without"})
    expect(done.returncode == 1 and "python3-numpy" in done.stderr and "Traceback" not in done.stderr, done.stderr)


def header(text):
    return len(text).to_bytes(8, "little") + text.encode()


def test_refusals(folder):
    save({"numbers": [1, 2, 3]}, f"{folder}/wrong.pt")
    with open(f"{folder}/garbage.pt", "wb") as out:
        out.write(b"this is no pickle")
    save({"a": print}, f"{folder}/call.pt")
    save({"a": Ready((stub("torch", "load"), ("x",)))}, f"{folder}/torch_call.pt")
    save({"a": Ready((stub("os", "system"), ("exit 1",)))}, f"{folder}/system.pt", "none")
    few = Storage(numpy.zeros(4, numpy.float32), ("torch", "FloatStorage"))
    beyond = (stub("torch._utils", "_rebuild_tensor_v2"), (few, 0, (4, 4), (4, 1), False, collections.OrderedDict()))
    save({"a": Ready(beyond)}, f"{folder}/beyond.pt")
    save(expert_state(8), f"{folder}/whole.pt")
    with open(f"{folder}/whole.pt", "rb") as source:
        whole = source.read()
    for cut in (0, 3, 30, len(whole) // 2, len(whole) - 10):
        with open(f"{folder}/cut{cut}.pt", "wb") as out:
            out.write(whole[:cut])
    save_legacy(expert_state(8), f"{folder}/legacy.pt")
    with open(f"{folder}/legacy.pt", "rb+") as out:
        out.truncate(os.path.getsize(f"{folder}/legacy.pt") - 1)
    # What stands beside the weights may be anything.
    for name, beside in (("text", "adam"), ("list", [1]), ("group", {"param_groups": [{}], "state": {}})):
        save({"model": expert_state(8), "optimizer": beside}, f"{folder}/optimizer_{name}.pt")
    save({"model": expert_state(8), "stats": {"updates": "many"}}, f"{folder}/stats.pt")
    bad = {
        "short": b"\x01", "long": b"\xff" * 7 + b"\x7f" + b"{}", "json": header("{{{{"), "list": header("[]"),
        "outside": header('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}') + b"\0" * 8,
        "shape": header('{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}') + b"\0" * 16,
        "dtype": header('{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}') + b"\0" * 4,
        "index": b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    }
    said = {"index": "shards", "lfs": "Git LFS", "dtype": "F8_E4M3", "cut30": "cut short", "beyond": "outside",
            "torch_call": "torch.load", "system": "os.system", "call": "print",
            "optimizer_text": "--weights-only", "optimizer_list": "--weights-only", "optimizer_group": "--weights-only",
            "stats": "--weights-only"}
    for name, content in bad.items():
        with open(f"{folder}/{name}.safetensors", "wb") as out:
            out.write(content)
    cases = [(name, "x.safetensors") for name in sorted(os.listdir(folder)) if name.endswith(".pt") and name != "whole.pt"]
    cases += [("missing.pt", "x.safetensors"), ("missing.safetensors", "x.pt")]
    cases += [(f"{name}.safetensors", "x.pt") for name in bad]
    for source, target in cases:
        done = convert(f"{folder}/{source}", f"{folder}/{target}")
        expect(done.returncode == 1, f"{source} is refused, not {done.returncode}: {done.stdout}")
        expect(done.stderr.count(source) == 1 and "Traceback" not in done.stderr, f"{source}: a message, not {done.stderr}")
        expect(said.get(source.split(".")[0], "") in done.stderr, f"{source}: {done.stderr}")
        expect(not os.path.exists(f"{folder}/{target}"), f"{source}: nothing is written")
    done = convert(f"{folder}/optimizer_text.pt", f"{folder}/x.safetensors", "--weights-only")
    expect(done.returncode == 0, f"the weights alone: {done.stderr}")
    expect(os.stat(f"{folder}/x.safetensors").st_mode & 0o777 == 0o600, "weights are their owner's")
    os.unlink(f"{folder}/x.safetensors")
    with open(f"{folder}/counted.safetensors", "wb") as out:
        out.write(header('{"__metadata__":{"update_count":"x"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}') + b"\0" * 4)
    done = convert(f"{folder}/counted.safetensors", f"{folder}/x.pt", "--wrap", "model")
    expect(done.returncode == 1 and "update_count" in done.stderr and "Traceback" not in done.stderr, done.stderr)
    import torch_file
    for at in range(0, len(whole), max(1, len(whole) // 300)):  # a flipped byte is a damaged file, or another number
        with open(f"{folder}/flipped.pt", "wb") as out:
            out.write(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1:])
        try:
            torch_file.read(f"{folder}/flipped.pt")
        except torch_file.TorchFileError:
            pass
    for length in (123, 640):  # which begin as JSON text and a pickle do
        with open(f"{folder}/length.safetensors", "wb") as out:
            out.write(header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)) + b"\0" * 4)
        expect(tensor_file.read(f"{folder}/length.safetensors")[0]["a"].tolist() == [0], f"a header of {length} bytes")
    expect(convert(f"{folder}/a.pt", f"{folder}/b.pt").returncode == 2, "two files of one kind are a usage error")
    for source, target in (("whole.pt", "no/such/x.safetensors"), ("whole.safetensors", "no/such/x.pt")):
        convert(f"{folder}/whole.pt", f"{folder}/whole.safetensors")
        done = convert(f"{folder}/{source}", f"{folder}/{target}")
        expect(done.returncode == 1 and f"{folder}/{target}: it cannot be written" in done.stderr and
               source not in done.stderr, f"a target that cannot be written: {done.stderr}")


def test_with_pytorch(folder):
    """The real one, where it is there."""
    try:
        import torch
        torch.save
    except (ImportError, AttributeError):
        print("no PyTorch here: its files were those of this test")
        return
    state = {name: torch.from_numpy(tensor.copy()) for name, tensor in expert_state(6).items()}
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in state.values()]
    kinds = {"adam": lambda p: torch.optim.Adam(p, lr=1e-3),
             "amsgrad": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
             "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9)}

    def train(them, optimizer, steps):
        torch.manual_seed(4)
        for _ in range(steps):
            for parameter in them:
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()

    for kind, make in kinds.items():
        them = [parameter.detach().clone().requires_grad_() for parameter in parameters]
        optimizer = make(them)
        train(them, optimizer, 7)
        torch.save({"module": {n: p.detach() for n, p in zip(state, them)}, "optimizer": optimizer.state_dict(),
                    "stats": {"updates": 7, "examples_processed": 70}}, f"{folder}/{kind}.real.pt")
        done = convert(f"{folder}/{kind}.real.pt", f"{folder}/{kind}.real.safetensors")
        expect(done.returncode == 0, f"{kind} of PyTorch: {done.stderr}")
        done = convert(f"{folder}/{kind}.real.safetensors", f"{folder}/{kind}.again.pt", "--wrap", "module")
        expect(done.returncode == 0, f"{kind} to PyTorch: {done.stderr}")
        loaded = torch.load(f"{folder}/{kind}.again.pt")
        again = [tensor.clone().requires_grad_() for tensor in loaded["module"].values()]
        resumed = make(again)
        resumed.load_state_dict(loaded["optimizer"])
        schedule = torch.optim.lr_scheduler.LambdaLR(resumed, lambda step: 1.0)
        schedule.load_state_dict(loaded["scheduler"])
        expect(schedule.last_epoch == 7, "the schedule's position is read")
        train(them, optimizer, 3)
        train(again, resumed, 3)
        expect(all(torch.equal(a, b) for a, b in zip(them, again)), f"{kind}: goes on from where it was")


with tempfile.TemporaryDirectory() as scratch:
    # Before the stubs of its names are there.
    for test in (test_with_pytorch, test_every_version_is_read, test_round_trips, test_optimizer_state,
                 test_what_the_server_has_not_is_said, test_prefix_and_precision, test_fixture, test_refusals):
        os.mkdir(f"{scratch}/{test.__name__}")
        test(f"{scratch}/{test.__name__}")
print("convert-state-dict: ok")
