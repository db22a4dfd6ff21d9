"""For system tests of a server: its real programs in a folder of their own, and a client that speaks the protocol."""
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
try:
    import zmq
except ImportError as missing:
    print(f"skipped: {missing} (Debian: python3-zmq)")
    sys.exit(77)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.path.abspath(os.environ.get("BUILD", os.path.join(ROOT, "build"))), "bin")
PATIENCE = 240  # seconds: only what hangs takes so long
messages = tempfile.mkdtemp(prefix="expertd-messages.")
subprocess.run(["protoc", "--python_out=" + messages, "-I" + os.path.join(ROOT, "proto"), "expertd.proto"], check=True)
sys.path.insert(0, messages)
import expertd_pb2 as pb  # noqa: E402
from support_cache import warm_cache  # noqa: E402

shutil.rmtree(messages)


def until(check, what):
    end = time.monotonic() + PATIENCE
    while not (value := check()):
        assert time.monotonic() < end, f"waited too long: {what}"
        time.sleep(0.01)
    return value


class Client:
    def __init__(self, endpoint):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)
        self.last_id = 0

    def send(self, method, uid="", rows=0, columns=4, tensors=1, request_id=None, value=1, **fields):
        """Tensors of float32 [rows, columns], all of the value 1 or 0. Returns the request's id."""
        self.last_id = request_id if request_id is not None else self.last_id + 1
        header = pb.RequestHeader(version=1, request_id=self.last_id, method=method, uid=uid, **fields)
        for _ in range(tensors if rows else 0):
            header.tensors.add(dtype=pb.FLOAT32, shape=[rows, columns])
        data = (b"\0\0\x80?" if value else b"\0\0\0\0") * (rows * columns)
        self.socket.send_multipart([header.SerializeToString()] + [data] * len(header.tensors))
        return self.last_id

    def receive(self, patience=PATIENCE):
        assert self.socket.poll(patience * 1000), "no answer"
        return pb.ReplyHeader.FromString(self.socket.recv_multipart()[0])

    def call(self, *arguments, **fields):
        self.send(*arguments, **fields)
        return self.receive()

    def counters(self):
        return {c.name: c.value for c in self.call(pb.STATS).stats.counters}

    def alive(self):
        return {e.uid: e.alive for e in self.call(pb.LIST).list.experts}

    def close(self):
        self.socket.close()


class Server:
    """Frontend and runtime. `experts`: lines of the YAML list; `frontend`, `server`: more of their sections, as "max_requests: 2"."""

    def __init__(self, experts, frontend="", endpoint=None, server="", device="{name: device0, cache_dir: %s}", devices=None):
        self.folder = tempfile.mkdtemp(prefix="expertd-server.")
        self.name = f"server-{os.getpid()}-{os.path.basename(self.folder)[-8:]}"
        self.run_dir = self.folder + "/run"
        self.config = self.folder + "/config.yaml"
        self.endpoint = endpoint or f"ipc://{self.folder}/frontend"
        self.running = {}
        listen = f'listen: ["{self.endpoint}"]' + (", " + frontend if frontend else "")
        more = ", " + server if server else ""
        with open(self.config, "w") as file:
            file.write(f"server: {{name: {self.name}, run_dir: {self.run_dir}{more}}}\nfrontend: {{{listen}}}\n"
                       f"devices: [{devices or device % warm_cache()}]\nexperts:\n" + "".join(f"  - {e}\n" for e in experts))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for process in self.running.values():
            process.kill()
            process.wait()
        zmq.Context.instance().destroy(linger=0)
        if kind:
            for program in self.running:
                print(f"--- {program}\n{self.log(program)}")
        for segment in self.segments():
            os.unlink(segment)
        shutil.rmtree(self.folder)

    def start(self, *programs, **options):
        for program in programs or ("frontend", "runtime"):
            self.start_as(program, f"expertd-{program}", **options)
        return self

    def start_as(self, name, program, *arguments, **options):
        """One of several of a program, by a name of its own."""
        with open(f"{self.folder}/{name}.log", "a") as log:
            self.running[name] = subprocess.Popen([f"{BIN}/{program}", "--config", self.config, *arguments], stderr=log, **options)

    def log(self, program):
        with open(f"{self.folder}/{program}.log") as log:
            return log.read()

    def kill(self, program):
        self.running[program].kill()
        self.running[program].wait()

    def stop(self, *programs):
        for program in programs or ("runtime", "frontend"):
            self.running[program].terminate()
            status = self.running[program].wait(PATIENCE)
            assert status == 0, f"{program} ended with {status}"

    def segments(self):
        prefix = f"expertd.{self.name}."
        return ["/dev/shm/" + name for name in os.listdir("/dev/shm") if name.startswith(prefix)]

    def client(self):
        return Client(self.endpoint)

    def wait_alive(self):
        def look():
            client = self.client()  # one that was connected to a killed frontend would be waited for
            pong = client.call(pb.PING).pong
            client.close()
            return pong.experts and pong.experts == pong.experts_alive

        until(look, "all experts are alive")
