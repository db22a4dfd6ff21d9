#!/usr/bin/env python3
"""Over the real programs: batches that wait for rows, grids drawn from a pattern, and a BACKWARD that is repeated after its
frontend and then its runtime were killed."""
# timeout: 120
import os, re, shutil, subprocess, sys, tempfile, time

import zmq

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.path.abspath(os.environ.get("BUILD", os.path.join(ROOT, "build"))), "bin")
folder = tempfile.mkdtemp(prefix="expertd-batching.")
subprocess.run(["protoc", "--python_out=" + folder, "-I" + os.path.join(ROOT, "proto"), "expertd.proto"], check=True)
sys.path.insert(0, folder)
import expertd_pb2 as pb  # noqa: E402
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support_cache import warm_cache  # noqa: E402

HOUR_MS = 3600000
with open(folder + "/config.yaml", "w") as file:
    file.write(f"""
server: {{name: batching-{os.getpid()}, run_dir: {folder}/run}}
frontend: {{listen: ["ipc://{folder}/frontend"], restart_grace: 60000}}
devices: [{{name: device0, cache_dir: {warm_cache()}}}]
experts:
  - {{uid: patient.0, block: nop, hidden_dim: 4, max_batch_size: 16, min_batch_size: 4, batch_timeout: {HOUR_MS}}}
  - {{uid: brief.0, block: nop, hidden_dim: 4, max_batch_size: 16, min_batch_size: 4, batch_timeout: 30}}
  - {{uid: ffn.0, block: ffn, hidden_dim: 32, max_batch_size: 16, optimizer: sgd}}
  - {{uid: "grid.[0:32].[0:256]", count: 20, seed: 3, block: nop, hidden_dim: 4}}
  - {{uid: "all.[2:4].[0:3]", block: nop, hidden_dim: 4}}
""")
running = {}


def start(program):
    with open(f"{folder}/{program}.log", "a") as log:
        running[program] = subprocess.Popen([f"{BIN}/{program}", "--config", folder + "/config.yaml"], stderr=log)


def kill_and_start(program):
    running[program].kill()
    running[program].wait()
    start(program)


class Client:
    def __init__(self):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(f"ipc://{folder}/frontend")

    def send(self, method, uid="", count=0, columns=4, tensors=1, request_id=1, **fields):
        header = pb.RequestHeader(version=1, request_id=request_id, method=method, uid=uid, **fields)
        for _ in range(tensors if count else 0):
            header.tensors.add(dtype=pb.FLOAT32, shape=[count, columns])
        frames = [b"\0\0\x80?" * (count * columns)] * len(header.tensors)
        self.socket.send_multipart([header.SerializeToString(), *frames])

    def receive(self):
        assert self.socket.poll(600000), "no answer"
        return pb.ReplyHeader.FromString(self.socket.recv_multipart()[0])

    def call(self, *arguments, **fields):
        self.send(*arguments, **fields)
        return self.receive()


def all_alive():
    end = time.monotonic() + 600
    while True:
        pong = Client().call(pb.PING).pong  # a killed frontend's connections are not waited for
        if pong.experts and pong.experts == pong.experts_alive:
            return
        assert time.monotonic() < end, pong
        time.sleep(0.02)


def counter(client, name):
    return {c.name: c.value for c in client.call(pb.STATS).stats.counters}["device.device0." + name]


def batches(client):
    return counter(client, "batches")


def rows_are_waited_for():
    one, other, asker = Client(), Client(), Client()
    before = batches(asker)
    one.send(pb.FORWARD, "patient.0", 2)
    other.send(pb.FORWARD, "patient.0", 2)
    assert one.receive().status == other.receive().status == pb.OK
    assert batches(asker) == before + 1, "two tasks of half of min_batch_size make one batch"
    assert one.call(pb.FORWARD, "patient.0", 4).status == pb.OK
    skipped = counter(asker, "skipped_tasks")
    assert one.call(pb.FORWARD, "patient.0", 3, deadline_ms=100).status == pb.DEADLINE_EXCEEDED
    end = time.monotonic() + 600
    while counter(asker, "skipped_tasks") == skipped:
        assert time.monotonic() < end, "an expired task keeps its rows while its pool waits for min_batch_size"
        time.sleep(0.01)
    assert one.call(pb.FORWARD, "brief.0", 1).status == pb.OK, "batch_timeout ends the wait"


def grids_are_drawn():
    uids = [e.uid for e in Client().call(pb.LIST).list.experts]
    drawn = [u for u in uids if u.startswith("grid.")]
    assert len(drawn) == len(set(drawn)) == 20
    for uid in uids:
        assert re.fullmatch(r"(([^.])+)([.](?:[0]|([1-9]([0-9]*))))+", uid), uid
    for uid in drawn:
        first, second = map(int, uid.split(".")[1:])
        assert first < 32 and second < 256
    assert [u for u in uids if u.startswith("all.")] == [f"all.{i}.{j}" for i in (2, 3) for j in (0, 1, 2)]
    return uids


def steps_are_made_once():
    def backward(request_id):
        return Client().call(pb.BACKWARD, "ffn.0", 3, 32, 2, request_id, client_id=b"sixteen bytes id", deadline_ms=500000).status

    def updates():
        return Client().call(pb.INFO, "ffn.0").info.update_count

    assert backward(1) == backward(1) == pb.OK and updates() == 1
    uids = grids_are_drawn()
    kill_and_start("expertd-frontend")
    all_alive()
    assert backward(1) == pb.ALREADY_EXISTS and updates() == 1
    assert backward(2) == pb.OK and updates() == 2
    kill_and_start("expertd-runtime")
    all_alive()
    kill_and_start("expertd-frontend")
    all_alive()
    before = updates()  # without a checkpoint the expert is new
    assert backward(1) == backward(2) == pb.ALREADY_EXISTS and updates() == before
    assert backward(3) == pb.OK and updates() == before + 1
    assert grids_are_drawn() == uids, "the same draw each time"


try:
    start("expertd-frontend")
    start("expertd-runtime")
    all_alive()
    rows_are_waited_for()
    steps_are_made_once()
    for program in ("expertd-runtime", "expertd-frontend"):
        running[program].terminate()
        assert running[program].wait(600) == 0
finally:
    for process in running.values():
        process.kill()
        process.wait()
    zmq.Context.instance().destroy(linger=0)
    for program in running:
        with open(f"{folder}/{program}.log") as log:
            print(f"--- {program}\n{log.read()}")
    shutil.rmtree(folder)
print("batching: ok")
