#!/usr/bin/python3
"""tests/bench/gpu works: on PoCL with the kernels for GPUs and tiny sizes, in fp32 beside PyTorch where that is there,
and in a precision whose matrix units are emulated. What it cannot do it leaves out and says why."""
# timeout: 300
import json
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from support_cache import warm_cache  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(ROOT, "tests/bench/gpu")
BUILD = os.environ.get("BUILD", "build")

if any(word in BUILD for word in ("address", "undefined", "thread")):
    print("skipped: figures of an instrumented build say nothing")
    sys.exit(77)
warm_cache("bench")  # as its device is called


def measure(*arguments):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        result = subprocess.run(["/usr/bin/python3", SCRIPT, "--quick", "--json", out.name, *arguments], cwd=ROOT,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        print(result.stdout, result.stderr)
        assert result.returncode == 0, result.returncode
        return json.load(open(out.name)), result.stdout


def value(figures, name, may_be_none=False):
    """What a busy machine does not come to in a moment's window is 0; a kernel alone is measured for as long as it takes."""
    found = [f for f in figures if f["name"].endswith(name)]
    assert found, f"no figure {name}"
    assert all(f["value"] > 0 or (may_be_none and f["value"] == 0) for f in found), found
    return found[0]


figures, text = measure("--kernel", "gpu")
for name in ("peak of multiply-adds", "64 rows, linear h to 4h", "64 rows, weight gradient", "64 rows, ffn forward",
             "64 rows, ffn backward, adam"):
    value(figures, name)
for name in ("ffn forward, 4 clients", "ffn forward, backward, adam, 4 clients"):
    figure = value(figures, name, may_be_none=True)
    assert figure["ratio"] >= 0 and figure["note"].startswith("0 errors"), figure
try:
    import torch  # noqa: F401
    assert value(figures, "64 rows, linear 4h to h")["ratio"] > 0
    assert value(figures, "64 rows, ffn backward, adam")["ratio"] > 0
    assert "left out" not in text, text
except ImportError:
    assert "has no PyTorch" in text, text

figures, text = measure("--kernel", "mma", "--precision", "tf32", "--parts", "layers", "--torch", "none")
value(figures, "peak of the matrix units")
assert value(figures, "16 rows, linear h to 4h")["ratio"] is None
assert "--torch none" in text, text

# A device that cannot do a precision is named, and is no crash.
result = subprocess.run(["/usr/bin/python3", SCRIPT, "--quick", "--kernel", "gpu", "--precision", "tf32"], cwd=ROOT,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
assert result.returncode == 1 and "or precision: fp32" in result.stdout, (result.returncode, result.stdout)
