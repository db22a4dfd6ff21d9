#!/usr/bin/python3
"""scripts/convert-state-dict: there and back gives the same weights; what is no state_dict is refused with a reason."""
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import types

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))

try:
    import numpy
    import torch
except ImportError as missing:
    print(f"skipped: {missing} (Debian: python3-torch)")
    sys.exit(77)
import tensor_file


SCRIPT = os.path.join(ROOT, "scripts/convert-state-dict")


def load_script():
    loader = importlib.machinery.SourceFileLoader("convert_state_dict", SCRIPT)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("convert_state_dict", loader))
    loader.exec_module(module)
    return module


script = load_script()


def convert(*arguments):
    """Runs the script in this process: importing PyTorch takes seconds."""
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


def expert_state(hidden):
    torch.manual_seed(3)
    return {
        "ffn.weight": torch.randn(4 * hidden, hidden), "ffn.bias": torch.randn(4 * hidden),
        "ffn_output.weight": torch.randn(4 * hidden, hidden).t(),  # not contiguous
        "ffn_output.bias": torch.randn(hidden), "layer_norm.weight": torch.ones(hidden),
        "layer_norm.bias": torch.zeros(hidden),
    }


def same(state, arrays):
    return set(state) == set(arrays) and all(numpy.array_equal(state[n].numpy(), arrays[n]) for n in state)


def test_round_trips(folder):
    state = expert_state(24)
    shapes = {
        "plain": state,
        "module": {"module": state, "optimizer": {"state": {}, "param_groups": [{"params": list(range(6))}]}},
        "model": {"stats": {"updates": 3, "examples_processed": 96}, "model": state, "scheduler": {}},
    }
    for name, content in shapes.items():
        source, ours, back = (f"{folder}/{name}{end}" for end in (".pt", ".safetensors", ".back.pt"))
        torch.save(content, source)
        done = convert(source, ours)
        expect(done.returncode == 0, f"{name} to safetensors: {done.stderr}")
        expect(same(state, tensor_file.read(ours)[0]), f"{name}: the weights are the same in our file")
        done = convert(ours, back, "--wrap", "module")
        expect(done.returncode == 0, f"{name} back: {done.stderr}")
        loaded = torch.load(back)["module"]
        expect(same(loaded, {n: t.numpy() for n, t in state.items()}), f"{name}: there and back is the same")


def train(parameters, optimizer, steps):
    torch.manual_seed(4)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


def test_optimizer_state(folder):
    """Training goes on after there and back exactly as if nothing had happened."""
    kinds = {"adam": lambda p: torch.optim.Adam(p, lr=1e-3), "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9)}
    for kind, make in kinds.items():
        state = {name: torch.nn.Parameter(tensor.contiguous()) for name, tensor in expert_state(6).items()}
        optimizer = make(list(state.values()))
        train(state.values(), optimizer, 7)
        torch.save({"module": {n: p.detach() for n, p in state.items()}, "optimizer": optimizer.state_dict(),
                    "stats": {"updates": 7, "examples_processed": 70}}, f"{folder}/{kind}.pt")
        done = convert(f"{folder}/{kind}.pt", f"{folder}/{kind}.safetensors")
        expect(done.returncode == 0, f"{kind}: {done.stderr}")
        arrays, metadata = tensor_file.read(f"{folder}/{kind}.safetensors")
        expect(metadata["update_count"] == "7" and metadata["examples"] == "70", f"{kind}: counters {metadata}")
        first = "exp_avg" if kind == "adam" else "momentum_buffer"
        expect(arrays[f"optimizer.{first}.ffn.weight"].shape == (24, 6), f"{kind}: the state has the server's names")
        done = convert(f"{folder}/{kind}.safetensors", f"{folder}/{kind}.back.pt", "--wrap", "module")
        expect(done.returncode == 0, f"{kind} back: {done.stderr}")
        loaded = torch.load(f"{folder}/{kind}.back.pt")
        again = {name: torch.nn.Parameter(tensor) for name, tensor in loaded["module"].items()}
        resumed = make(list(again.values()))
        resumed.load_state_dict(loaded["optimizer"])
        train(state.values(), optimizer, 3)
        train(again.values(), resumed, 3)
        expect(all(torch.equal(state[n], again[n]) for n in state), f"{kind}: goes on from where it was")


def test_prefix_and_precision(folder):
    state = {f"experts.0.{name}": tensor.double() for name, tensor in expert_state(8).items()}
    state["front.weight"] = torch.zeros(8, 8)
    torch.save(state, f"{folder}/all.pt")
    done = convert(f"{folder}/all.pt", f"{folder}/one.safetensors", "--prefix", "experts.0.")
    expect(done.returncode == 0, done.stderr)
    arrays, _ = tensor_file.read(f"{folder}/one.safetensors")
    expect(same(expert_state(8), arrays), "one expert out of a larger model, in float32")
    done = convert(f"{folder}/all.pt", f"{folder}/none.safetensors", "--prefix", "experts.7.")
    expect(done.returncode == 1 and "experts.0.ffn.bias" in done.stderr, "a prefix that is not there lists what is")
    expect(not os.path.exists(f"{folder}/none.safetensors"), "nothing is written after an error")


def test_fixture(folder):
    fixture = os.path.join(ROOT, "examples/data/digits-experts/ffn.0.0.safetensors")
    command = [sys.executable, "-B", SCRIPT, fixture, f"{folder}/f.pt"]  # as a person runs it
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    expect(done.returncode == 0, f"the shipped expert becomes a state_dict: {done.stderr}")
    state = torch.load(f"{folder}/f.pt")
    expect(list(state["ffn.weight"].shape) == [256, 64], "with PyTorch's shapes")


def header(text):
    return len(text).to_bytes(8, "little") + text.encode()


def test_refusals(folder):
    torch.save({"numbers": [1, 2, 3]}, f"{folder}/wrong.pt")
    with open(f"{folder}/garbage.pt", "wb") as out:
        out.write(b"this is no pickle")
    torch.save({"a": print}, f"{folder}/call.pt")
    bad = {
        "short": b"\x01", "long": b"\xff" * 7 + b"\x7f" + b"{}", "json": header("{{{{"), "list": header("[]"),
        "outside": header('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}') + b"\0" * 8,
        "shape": header('{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}') + b"\0" * 16,
    }
    for name, content in bad.items():
        with open(f"{folder}/{name}.safetensors", "wb") as out:
            out.write(content)
    cases = [(f"{name}.pt", "x.safetensors") for name in ("wrong", "call", "garbage", "missing")]
    cases += [(f"{name}.safetensors", "x.pt") for name in bad]
    for source, target in cases:
        done = convert(f"{folder}/{source}", f"{folder}/{target}")
        expect(done.returncode == 1, f"{source} is refused, not {done.returncode}: {done.stdout}")
        expect(source in done.stderr and "Traceback" not in done.stderr, f"{source}: a message, not {done.stderr}")
        expect(not os.path.exists(f"{folder}/{target}"), f"{source}: nothing is written")
    expect(convert(f"{folder}/a.pt", f"{folder}/b.pt").returncode == 2, "two files of one kind are a usage error")


with tempfile.TemporaryDirectory() as scratch:
    for test in (test_round_trips, test_optimizer_state, test_prefix_and_precision, test_fixture, test_refusals):
        test(scratch)
print("convert-state-dict: ok")
