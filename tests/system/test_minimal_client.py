#!/usr/bin/env python3
"""client/python/minimal_client.py, as its users run it, against a server written from PROTOCOL.md alone."""
# timeout: 60
# once: Python against Python
import os, subprocess, sys, tempfile, threading

import zmq

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLIENT = os.path.join(ROOT, "client", "python", "minimal_client.py")
generated = tempfile.mkdtemp()
subprocess.run(["protoc", "--python_out=" + generated, "-I" + os.path.join(ROOT, "proto"), "expertd.proto"], check=True)
sys.path.insert(0, generated)
import expertd_pb2 as pb  # noqa: E402


def reply_to(request, frames):
    """The answer of a server whose one expert, nop.0, gives its input back."""
    reply = pb.ReplyHeader(version=1, request_id=request.request_id)
    if request.uid != "nop.0":
        reply.status, reply.message = pb.NOT_FOUND, f'no expert "{request.uid}" on this server'
        return [reply.SerializeToString()]
    if request.method == pb.INFO:
        field = pb.Schema.Field(name="x", dtype=pb.FLOAT32, row_shape=[4])
        reply.info.CopyFrom(pb.ExpertInfo(uid="nop.0", forward_schema=pb.Schema(tensors=[field])))
        return [reply.SerializeToString()]
    assert request.version == 1 and len(frames) == len(request.tensors) and request.deadline_ms == 10000
    assert all(t.dtype == pb.FLOAT32 and list(t.shape) == [2, 4] for t in request.tensors)
    assert all(len(f) == 32 for f in frames)
    assert len(request.client_id) == 16 and any(request.client_id)
    if request.method == pb.BACKWARD:
        assert len(frames) == 2
    reply.tensors.append(request.tensors[0])
    return [reply.SerializeToString(), frames[0]]


def serve(socket):
    while True:
        identity, header, *frames = socket.recv_multipart()
        request = pb.RequestHeader.FromString(header)
        late = pb.ReplyHeader(version=1, request_id=request.request_id + 1000)
        socket.send_multipart([identity, late.SerializeToString()])
        socket.send_multipart([identity, *reply_to(request, frames)])


def run(endpoint, uid):
    return subprocess.run([sys.executable, CLIENT, endpoint, uid], env={**os.environ, "PYTHONPATH": generated},
                          capture_output=True, text=True, timeout=600)


router = zmq.Context.instance().socket(zmq.ROUTER)
router.linger = 0
port = router.bind_to_random_port("tcp://127.0.0.1")
threading.Thread(target=serve, args=(router,), daemon=True).start()

good = run(f"tcp://127.0.0.1:{port}", "nop.0")
print(good.stdout, good.stderr)
assert good.returncode == 0 and "outputs [('float32', (2, 4))] gradients [(2, 4)]" in good.stdout
bad = run(f"tcp://127.0.0.1:{port}", "nop.1")
assert bad.returncode != 0 and "NOT_FOUND: no expert" in bad.stderr, bad.stderr
subprocess.run(["rm", "-rf", generated], check=True)
os._exit(0)  # the thread waits in its socket
