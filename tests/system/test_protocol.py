#!/usr/bin/env python3
"""proto/PROTOCOL.md against the real programs: its Python example as it stands there, its bytes, a REQ client, a storm of
wrong requests beside a good client, and a runtime that is killed."""
# timeout: 120
import os, re, shutil, signal, subprocess, sys, tempfile, threading, time

import zmq

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.path.abspath(os.environ.get("BUILD", os.path.join(ROOT, "build"))), "bin")
folder = tempfile.mkdtemp(prefix="expertd-protocol.")
subprocess.run(["protoc", "--python_out=" + folder, "-I" + os.path.join(ROOT, "proto"), "expertd.proto"], check=True)
sys.path.insert(0, folder)
import expertd_pb2 as pb  # noqa: E402
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support_cache import warm_cache  # noqa: E402

CONFIG = f"""
server: {{name: protocol-{os.getpid()}, run_dir: {folder}/run}}
frontend: {{listen: ["tcp://127.0.0.1:*"], restart_grace: 60000}}
devices: [{{name: device0, cache_dir: {warm_cache()}}}]
experts:
  - {{uid: ffn.4.17, block: nop, hidden_dim: 1024, max_batch_size: 64}}
  - {{uid: ffn.4.18, block: ffn, hidden_dim: 64}}
"""
with open(folder + "/config.yaml", "w") as file:
    file.write(CONFIG)
running = []


def start(program):
    log = open(f"{folder}/{program}.log", "a")
    process = subprocess.Popen([f"{BIN}/{program}", "--config", folder + "/config.yaml"], stderr=log)
    running.append(process)
    return process


def wait_for(what, condition, limit_s=600):
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.02)


def log_of(program):
    with open(f"{folder}/{program}.log") as text:
        return text.read()


class Client:
    def __init__(self, kind=zmq.DEALER):
        self.socket = zmq.Context.instance().socket(kind)
        self.socket.linger = 0
        self.socket.connect(endpoint)
        self.last = 0

    def send(self, method, uid="", frames=(), **fields):
        self.last += 1
        header = pb.RequestHeader(version=1, request_id=self.last, method=method, uid=uid, **fields)
        self.socket.send_multipart([header.SerializeToString(), *frames])

    def receive(self, limit_ms=600000):
        assert self.socket.poll(limit_ms), "no answer"
        first, *frames = self.socket.recv_multipart()
        return pb.ReplyHeader.FromString(first), frames

    def call(self, *arguments, **fields):
        self.send(*arguments, **fields)
        return self.receive()


def rows(count, columns=1024):
    return [pb.Tensor(dtype=pb.FLOAT32, shape=[count, columns])]


def alive(client):
    reply, frames = client.call(pb.FORWARD, "ffn.4.17", [b"\0\0\x80?" * 1024], tensors=rows(1))
    assert reply.status == pb.OK and frames == [b"\0\0\x80?" * 1024], reply


def check_example(document):
    code = re.search(r"```python\n(.*?)```", document, re.S).group(1)
    assert "tcp://127.0.0.1:31330" in code
    code = code.replace("tcp://127.0.0.1:31330", endpoint)
    check = "assert numpy.array_equal(x, y) and numpy.allclose(grad_x, y / y.size)\nsocket.close(0)\n"
    subprocess.run([sys.executable, "-c", code + check], check=True, timeout=600, env={**os.environ, "PYTHONPATH": folder})


def check_bytes(document):
    examples = [bytes.fromhex(line) for line in re.findall(r"^((?:[0-9a-f]{2} ?)+)$", document, re.M)]
    assert len(examples) == 5
    ping, pong, forward, outputs, not_found = examples
    assert pb.ReplyHeader.FromString(pong).pong.server == "expertd"
    request = pb.RequestHeader.FromString(forward)
    assert request.uid == "ffn.4.17" and request.deadline_ms == 2000 and list(request.tensors[0].shape) == [2, 64]
    assert list(pb.ReplyHeader.FromString(outputs).tensors[0].shape) == [2, 64]
    assert pb.ReplyHeader.FromString(not_found).status == pb.NOT_FOUND
    client = Client()
    client.socket.send(ping)
    reply, _ = client.receive()
    assert reply.request_id == 7 and reply.pong.experts_alive == 2


def check_storm():
    """Wrong requests of all kinds from several clients; a good one must not notice."""
    stop, served = threading.Event(), [0]

    def good():
        client = Client()
        while not stop.is_set():
            alive(client)
            served[0] += 1

    thread = threading.Thread(target=good)
    thread.start()
    client = Client()
    wrong = [
        (pb.NOT_FOUND, dict(uid="ffn.9.9", frames=[b"x"])),
        (pb.INVALID_ARGUMENT, dict(uid="ffn.4.17", frames=[b"x" * 4096], tensors=[pb.Tensor(dtype=2, shape=[1, 1024])])),
        (pb.INVALID_ARGUMENT, dict(uid="ffn.4.17", frames=[b"x" * 4095], tensors=rows(1))),
        (pb.INVALID_ARGUMENT, dict(uid="ffn.4.17", frames=[b""], tensors=rows(0))),
        (pb.INVALID_ARGUMENT, dict(uid="ffn.4.17", frames=[b"x" * 65 * 4096], tensors=rows(65))),
        (pb.INVALID_ARGUMENT, dict(uid="ffn.4.17", frames=[b"x"], tensors=rows(1 << 60))),
        (pb.INVALID_ARGUMENT, dict(uid="ffn.4.17", tensors=rows(1))),
        (pb.INVALID_ARGUMENT, dict(uid="ffn.4.17", frames=[b"x"] * 3000, tensors=rows(1))),
    ]
    for _ in range(30):
        for status, arguments in wrong:
            reply, frames = client.call(pb.FORWARD, **arguments)
            assert reply.status == status and reply.message and not frames, reply
        for garbage in (b"\xff" * 100, os.urandom(300), b"\x08"):
            client.socket.send_multipart([garbage, os.urandom(10)])
            assert client.receive()[0].status != pb.OK
    stop.set()
    thread.join(600)
    assert not thread.is_alive() and served[0] > 0
    print(f"a good client was served {served[0]} times during the storm")


def check_killed_runtime(runtime):
    client = Client()
    runtime.send_signal(signal.SIGSTOP)  # so that the requests are surely queued when it dies
    for _ in range(4):
        client.send(pb.FORWARD, "ffn.4.17", [b"\0" * 4096], tensors=rows(1))
    other = Client()
    wait_for("requests in flight", lambda: counters(other)["device.device0.in_flight"] == 4)
    runtime.kill()
    runtime.wait()
    wait_for("the death", lambda: other.call(pb.PING)[0].pong.experts_alive == 0)
    reply, _ = other.call(pb.FORWARD, "ffn.4.17", [b"\0" * 4096], tensors=rows(1))
    assert reply.status == pb.UNAVAILABLE and "died" in reply.message, reply
    start("expertd-runtime")
    for _ in range(4):
        assert client.receive(60000)[0].status == pb.OK
    alive(other)


def counters(client):
    return {entry.name: entry.value for entry in client.call(pb.STATS)[0].stats.counters}


def names_of_stats(client):
    stats = client.call(pb.STATS)[0].stats
    return {entry.name for entry in [*stats.counters, *stats.histograms]}


try:
    frontend = start("expertd-frontend")
    wait_for("the frontend", lambda: "listening on" in log_of("expertd-frontend"))
    endpoint = re.search(r"listening on (\S+)", log_of("expertd-frontend")).group(1)
    runtime = start("expertd-runtime")
    first = Client()
    wait_for("the experts", lambda: first.call(pb.PING)[0].pong.experts_alive == 2)
    with open(os.path.join(ROOT, "proto", "PROTOCOL.md")) as file:
        document = file.read()
    check_example(document)
    check_bytes(document)
    alive(Client(zmq.REQ))
    check_storm()
    section = document.split("## Counters")[1].split("## ")[0]
    missing = set(re.findall(r"`(frontend\.[a-z_.]+)`", section)) - names_of_stats(first)
    assert not missing, missing
    check_killed_runtime(runtime)
    frontend.terminate()
    assert frontend.wait(600) == 0
finally:
    for process in running:
        process.send_signal(signal.SIGCONT)  # it may have been stopped
        process.terminate()
    for process in running:
        process.wait()
    zmq.Context.instance().destroy(linger=0)
    for program in ("expertd-frontend", "expertd-runtime"):
        print(f"--- {program}\n{log_of(program)}")
    shutil.rmtree(folder)
