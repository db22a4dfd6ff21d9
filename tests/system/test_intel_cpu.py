#!/usr/bin/env python3
"""Training steps of every kind of block on Intel's OpenCL runtime for CPUs, where it is installed: the answers are PoCL's.
It is in no distribution; `pip install --prefix FOLDER intel-opencl-rt intel-cmplr-lib-rt` brings it, and INTEL_OPENCL=FOLDER
tells this test of it. It compiles all kernels of a program at once: half a minute of a processor at the first start."""
# timeout: 3600
import glob, os, site, sys, tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
if any(word in os.environ.get("BUILD", "") for word in ("address", "undefined", "thread")):
    print("skipped: Intel's runtime is not looked at by sanitizers")
    sys.exit(77)
PLACES = [os.environ.get("INTEL_OPENCL", "/nowhere"), site.getuserbase(), "/usr/local", "/opt/intel/oneapi/compiler/latest"]
library = next((path for place in PLACES for path in sorted(glob.glob(place + "/lib/libintelocl.so"))), None)
if library is None:
    print("skipped: Intel's OpenCL runtime is not installed (pip: intel-opencl-rt; INTEL_OPENCL names its folder)")
    sys.exit(77)
from support_blocks import EXPERTS, compare, train  # noqa: E402
import support_server  # noqa: E402

support_server.PATIENCE = 3000  # for its compiler, on a busy machine
from support_server import Server  # noqa: E402

with Server(EXPERTS) as server:
    expected = train(server)
with tempfile.TemporaryDirectory(prefix="expertd-intel.") as folder:
    with open(folder + "/intel.icd", "w") as file:
        file.write(library + "\n")
    os.makedirs(folder + "/cache/device0", 0o700)
    os.environ.update(OCL_ICD_VENDORS=folder, LD_LIBRARY_PATH=os.path.dirname(library) + ":" + os.environ.get("LD_LIBRARY_PATH", ""))
    with Server(EXPERTS, "stall_timeout: 1500000", devices="{name: device0, platform: Intel, cache_dir: '" + folder + "/cache'}") as server:
        answers = train(server)
        assert "Intel" in server.log("runtime"), server.log("runtime")
    compare(answers, expected)
print(f"{len(answers)} calls on Intel's runtime are answered as on PoCL")
