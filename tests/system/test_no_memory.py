#!/usr/bin/env python3
"""A frontend that has no memory for an answer: a status that says "nothing was done" is said only where nothing was done."""
# timeout: 600
import os, resource, signal, sys

if "address" in os.environ.get("BUILD", ""):
    print("skipped: a sanitizer's allocator ends the process where memory is refused")
    sys.exit(77)

from support_server import Server, pb, until

ROWS, COLUMNS = 64, 163840  # 40 MiB an answer, whose buffer is one block of 64 MiB

SIZES = f"hidden_dim: {COLUMNS}, max_batch_size: {ROWS}, queue_rows: {ROWS}"
BLOCK = ("blocks:\n  - {name: scale, inputs: [{name: x, shape: [hidden_dim]}], layers: [{name: y, layer: rms_norm, input: x}], "
         "outputs: [{name: output, value: y}]}")

with Server([f"{{uid: nop.0, block: nop, {SIZES}}}",
             f"{{uid: still.0, block: scale, {SIZES}, optimizer: none}}",
             f"{{uid: learns.0, block: scale, {SIZES}, optimizer: sgd}}\n{BLOCK}"]) as server:
    server.start()
    server.wait_alive()
    client = server.client()
    frontend, runtime = server.running["frontend"].pid, server.running["runtime"].pid
    for method, uid, tensors, ids, expected in ((pb.BACKWARD, "learns.0", 2, b"", pb.ALREADY_EXISTS),
                                                (pb.BACKWARD, "learns.0", 2, b"sixteen bytes id", pb.ALREADY_EXISTS),
                                                (pb.BACKWARD, "still.0", 2, b"sixteen bytes id", pb.RESOURCE_EXHAUSTED),
                                                (pb.BACKWARD, "nop.0", 2, b"sixteen bytes id", pb.RESOURCE_EXHAUSTED),
                                                (pb.FORWARD, "nop.0", 1, b"", pb.RESOURCE_EXHAUSTED)):
        before = client.counters()["device.device0.tasks"]
        os.kill(runtime, signal.SIGSTOP)
        client.send(method, uid, ROWS, COLUMNS, tensors, client_id=ids)
        other = server.client()
        until(lambda: other.counters()["device.device0.in_flight"] == 1, "the request is queued")
        with open(f"/proc/{frontend}/statm") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        resource.prlimit(frontend, resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
        os.kill(runtime, signal.SIGCONT)
        reply = client.receive()
        resource.prlimit(frontend, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert reply.status == expected, reply
        assert "memory" in reply.message, reply
        assert client.counters()["device.device0.tasks"] == before + 1, "it was computed"
    server.stop()
print("no memory: ok")
