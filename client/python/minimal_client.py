#!/usr/bin/env python3
"""A client of expertd from its protocol alone (PROTOCOL.md): Debian's python3-zmq, python3-protobuf and python3-numpy.

    protoc --python_out=. expertd.proto
    python3 minimal_client.py tcp://127.0.0.1:31330 ffn.0.0
"""
import os, sys
import numpy, zmq
import expertd_pb2 as pb

DTYPES = {pb.FLOAT32: "<f4", pb.FLOAT64: "<f8", pb.FLOAT16: "<f2", pb.INT8: "i1", pb.INT16: "<i2", pb.INT32: "<i4",
          pb.INT64: "<i8", pb.UINT8: "u1", pb.BOOL: "?"}
NUMBERS = {numpy.dtype(name): number for number, name in DTYPES.items()}


class Client:
    def __init__(self, endpoint):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)
        self.client_id, self.last_id = os.urandom(16), 0

    def call(self, method, uid="", arrays=(), timeout_ms=10000):
        """The reply's header and its tensors as arrays."""
        self.last_id += 1
        arrays = [numpy.ascontiguousarray(a) for a in arrays]
        tensors = [pb.Tensor(dtype=NUMBERS[a.dtype], shape=a.shape) for a in arrays]
        header = pb.RequestHeader(version=1, request_id=self.last_id, method=method, uid=uid, tensors=tensors,
                                  deadline_ms=timeout_ms, client_id=self.client_id)
        self.socket.send_multipart([header.SerializeToString(), *arrays])
        while self.socket.poll(timeout_ms + 1000):
            first, *frames = self.socket.recv_multipart()
            reply = pb.ReplyHeader.FromString(first)
            if reply.request_id != self.last_id:
                continue  # the late answer to a request that was given up
            if reply.status != pb.OK:
                raise RuntimeError(f"{uid}: {pb.Status.Name(reply.status)}: {reply.message}")
            return reply, [numpy.frombuffer(f, DTYPES[t.dtype]).reshape(t.shape) for t, f in zip(reply.tensors, frames)]
        raise TimeoutError(f"{uid}: no answer")


if __name__ == "__main__":
    client, uid = Client(sys.argv[1]), sys.argv[2]
    schema = client.call(pb.INFO, uid)[0].info.forward_schema.tensors
    inputs = [numpy.random.rand(2, *t.row_shape).astype(DTYPES[t.dtype]) for t in schema]
    _, outputs = client.call(pb.FORWARD, uid, inputs)
    _, gradients = client.call(pb.BACKWARD, uid, inputs + [y / y.size for y in outputs])
    print("outputs", [(y.dtype.name, y.shape) for y in outputs], "gradients", [g.shape for g in gradients])
