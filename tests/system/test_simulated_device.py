#!/usr/bin/env python3
"""Training steps of every kind of block with the kernels for GPUs on Oclgrind's simulated device, which reports data races and
accesses out of bounds: none is reported, the answers are those of a real device, and planted faults are noticed. (What is read
before it was written is only looked for in the planted one: the simulator does not know an instruction that products need.)"""
# timeout: 1800
import os, re, shutil, subprocess, sys, tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
if any(word in os.environ.get("BUILD", "") for word in ("address", "undefined", "thread")):
    print("skipped: the simulator is preloaded, as the sanitizers are")
    sys.exit(77)
if not shutil.which("oclgrind"):
    print("skipped: needs oclgrind (scripts/install-packages --all)")
    sys.exit(77)
from support_blocks import EXPERTS, compare, train  # noqa: E402
import support_server  # noqa: E402

support_server.PATIENCE = 1500  # a simulator on a busy machine
from support_server import BIN, Server, pb, until  # noqa: E402

class Simulated(Server):
    """A server whose runtime runs under the simulator."""

    def __init__(self, experts, *flags):
        self.flags = flags
        super().__init__(experts, "stall_timeout: 1500000", device="{name: device0, platform: oclgrind, linear_kernel: gpu, tune: off, cache_dir: %s}")

    def start(self, *programs):
        super().start("frontend")
        with open(f"{self.folder}/runtime.log", "a") as log:
            # It counts the local memory of all kernels of a program together.
            command = ["oclgrind", "--local-mem-size", "65536", "--log", f"{self.folder}/reports", *self.flags,
                       f"{BIN}/expertd-runtime", "--config", self.config]
            self.running["runtime"] = subprocess.Popen(command, stderr=log, stdout=log)
        return self

    def reports(self):
        path = f"{self.folder}/reports"
        return open(path).read().strip() if os.path.exists(path) else ""


with Server(EXPERTS) as server:
    expected = train(server)
with Simulated(EXPERTS, "--data-races") as server:
    answers = train(server)
    assert not server.reports(), server.reports()[:4000]
    compare(answers, expected)
print(f"{len(answers)} calls, nothing reported")

# An own block whose kernel has one fault: what is said of it.
OUT = "y[AT(y)] = column < columns ? x[AT(x)] * vectors[weight + column] + vectors[bias + column] : 0;"
FAULTS = [("", OUT, None, ["--data-races"]),
          ("", OUT.replace("y[AT(y)]", "y[AT(y) + (1UL << 24)]"), "Invalid write", ["--data-races"]),
          ("", OUT.replace("x[AT(x)]", "x[AT(x) + (1UL << 24)]"), "Invalid read", ["--data-races"]),
          ("", OUT.replace("y[AT(y)]", "y[y_offset]").replace("vectors[bias + column]", "column"), "data race", ["--data-races"]),
          ("float never[2]; never[rows > 99] = 0; ", OUT.replace("x[AT(x)]", "never[1]"), "Uninitialized", ["--uninitialized"])]
examples = os.path.join(os.path.dirname(BIN), "examples")
for before, line, report, flags in FAULTS:
    own = tempfile.mkdtemp(prefix="expertd-own.")
    try:
        shutil.copy(f"{examples}/scale_shift.so", own)
        source = open(f"{examples}/scale_shift.cl").read()
        assert source.count(OUT) == 1, "scale_shift.cl has another text than this test knows"
        with open(f"{own}/scale_shift.cl", "w") as file:
            file.write(source.replace(OUT, line).replace("const int column = get_global_id(0);", "const int column = get_global_id(0); " + before))
        with Simulated([f"{{uid: own.0, block: {own}/scale_shift.so, hidden_dim: 33, max_batch_size: 4}}"], *flags) as server:
            server.start().wait_alive()
            client = server.client()
            client.send(pb.FORWARD, "own.0", rows=2, columns=33)
            if report:
                until(lambda: report.lower() in server.reports().lower(), f"a report of {report}, not: {server.reports()[:1000]}")
            else:
                assert client.receive().status == pb.OK
                server.stop()
                assert not server.reports(), server.reports()[:2000]
            client.close()
        print(f"{report or 'no fault'}: {'reported' if report else 'nothing reported'}")
    finally:
        shutil.rmtree(own)
