"""For the system tests of expertd-dht: real processes on loopback, a frontend that only lists experts, and a client."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
PROGRAM = os.path.join(BUILD, "bin", "expertd-dht")

try:
    import zmq
except ImportError as missing:
    print(f"skipped: {missing} (Debian: python3-zmq)")
    sys.exit(77)
if not os.path.exists(PROGRAM):
    print(f"skipped: {PROGRAM} is not built")
    sys.exit(77)

folder = tempfile.mkdtemp(prefix="expertd-dht-test.")
subprocess.run(["protoc", f"--python_out={folder}", "-I", os.path.join(ROOT, "proto"), "dht.proto", "expertd.proto"],
               check=True)
sys.path.insert(0, folder)
import dht_pb2
import expertd_pb2
from support_ports import free_port

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 0, 3, 4, 8, 12
context = zmq.Context()
running = []


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


PATIENCE = 600  # seconds that only a hang reaches


def until(check, what):
    end = time.monotonic() + PATIENCE
    while not check():
        expect(time.monotonic() < end, f"waited too long: {what}")
        time.sleep(0.01)


class Frontend:
    """Answers LIST as a frontend does."""

    def __init__(self, uids=(), endpoint=None):
        self.alive = dict.fromkeys(uids, True)
        self.generation = int(time.time() * 1000)
        self.silent = False
        self.asked = 0
        self.lock = threading.Lock()
        self.socket = context.socket(zmq.ROUTER)
        self.endpoint = endpoint or f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        if endpoint:
            self.socket.bind(endpoint)
        self.stopping = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def set(self, alive):
        with self.lock:
            self.alive = dict(alive)
            self.generation += 1

    def kill(self, uids):
        self.set({uid: alive and uid not in uids for uid, alive in self.alive.items()})

    def answer(self, frame):
        request = expertd_pb2.RequestHeader.FromString(frame)
        reply = expertd_pb2.ReplyHeader(version=1, request_id=request.request_id)
        expect(request.method == expertd_pb2.LIST, "a watch only lists")
        with self.lock:
            self.asked += 1
            matching = sorted(u for u in self.alive if u.startswith(request.list.prefix))
            reply.list.generation = self.generation
            reply.list.total = len(matching)
            for uid in matching[request.list.offset:][:request.list.limit or 4096]:
                reply.list.experts.add(uid=uid, alive=self.alive[uid], device="cpu0")
        return reply.SerializeToString()

    def run(self):
        while not self.stopping:
            if self.socket.poll(50):
                frames = self.socket.recv_multipart()
                if not self.silent:
                    self.socket.send_multipart(frames[:-1] + [self.answer(frames[-1])])
        self.socket.close(0)

    def stop(self):
        self.stopping = True
        self.thread.join()


class Dht:
    """An expertd-dht process, and a client of it. host: in a network namespace, its name and an address there."""

    def __init__(self, *bootstrap, frontend=None, endpoint=None, period=0.2, expiration=0.6, port=0, host=None, **options):
        self.name = f"test{os.getpid()}-{len(running)}"
        self.listen = f"ipc://{folder}/{self.name}" if host else f"tcp://127.0.0.1:{free_port()}"
        flags = {
            "server-name": self.name, "server-run-dir": f"{folder}/run", "dht-listen": self.listen, "dht-port": port,
            "dht-network-id": os.getpid(), "dht-update-period": period, "dht-expiration": expiration,
            "dht-frontend": frontend.endpoint if frontend else "none",
        }
        if frontend or endpoint:
            flags["frontend-advertise"] = endpoint or frontend.endpoint
        flags.update({name.replace("_", "-"): value for name, value in options.items()})
        command = (["ip", "netns", "exec", host[0]] if host else []) + [PROGRAM] + [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        for address in bootstrap:
            command += ["--dht-bootstrap", address if isinstance(address, str) else address.address]
        self.log = open(f"{folder}/{self.name}.log", "w+")
        self.process = subprocess.Popen(command, stderr=self.log)
        running.append(self)
        self.socket = context.socket(zmq.DEALER)
        self.socket.connect(self.listen)
        self.last_id = 0
        self.port = self.status().port
        self.address = f"{host[1] if host else '127.0.0.1'}:{self.port}"

    def ask(self, method, deadline_ms=None, status=OK, **fields):
        """What has to be OK has all the time that there may be."""
        self.last_id += 1
        deadline_ms = deadline_ms or (60000 if status == OK else 5000)
        request = dht_pb2.Request(version=1, request_id=self.last_id, method=method, deadline_ms=deadline_ms, **fields)
        self.socket.send(request.SerializeToString())
        return self.reply(status)

    def reply(self, status=OK):
        begin = time.monotonic()
        while not self.socket.poll(100):
            expect(self.process.poll() is None, f"{self.name} has ended: {self.tail()}")
            expect(time.monotonic() - begin < PATIENCE, f"{self.name} does not answer")
        reply = dht_pb2.Reply.FromString(self.socket.recv())
        expect(status is None or reply.status == status, f"{self.name} answered {reply.status}, '{reply.message}'")
        return reply

    def status(self):
        return self.ask(dht_pb2.STATUS).node

    def counter(self, name):
        return {c.name: c.value for c in self.status().counters}[f"dht.{name}"]

    def resolve(self, *uids, **more):
        """Of each uid, the endpoints; of a single one only its."""
        resolved = self.ask(dht_pb2.RESOLVE, uids=uids, **more).resolved
        expect([r.uid for r in resolved] == list(uids), "answers are in the request's order")
        found = [sorted(replica.endpoint for replica in r.replicas) for r in resolved]
        return found[0] if len(uids) == 1 else found

    def prefix(self, prefix):
        content = self.ask(dht_pb2.PREFIX, prefixes=[prefix]).prefixes[0]
        return [sorted(c for r in ranges for c in range(r.first, r.first + r.count))
                for ranges in (content.experts, content.branches)]

    def beam(self, prefix, grid, scores, size, **more):
        return self.ask(dht_pb2.BEAM_SEARCH, beam=dht_pb2.BeamQuery(
            prefix=prefix, grid_size=grid, scores=scores, beam_size=size), **more).beam

    def draw(self, pattern, count, **more):
        return self.ask(dht_pb2.DRAW, draw=dht_pb2.DrawQuery(pattern=pattern, count=count), **more).draw

    def tail(self):
        self.log.flush()
        with open(self.log.name) as log:
            return log.read()[-3000:]

    def stop(self, how=signal.SIGTERM, seconds=PATIENCE):
        """Ends the process; returns its exit status."""
        if self.process.poll() is not None and self.process.returncode == -signal.SIGKILL:
            return self.process.returncode
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(seconds)
        if how != signal.SIGKILL:
            expect(status == 0, f"{self.name} ended with {status}: {self.tail()}")
        return status

    def kill(self):
        self.stop(signal.SIGKILL)


def run(tests):
    """Runs each function; ends the script. Nothing is left behind."""
    failed = 0
    for test in tests:
        begin = time.monotonic()
        try:
            test()
            print(f"ok {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED {test.__name__}: {type(error).__name__}: {error}", flush=True)
            for dht in running:
                print(f"--- {dht.name}: {dht.tail()}")
        finally:
            for dht in running:
                try:
                    dht.stop()
                except Exception as error:
                    failed += 1
                    print(f"FAILED at the end of {test.__name__}: {error}")
                    dht.process.kill()
                    dht.process.wait()
                dht.socket.close(0)
                dht.log.close()
            running.clear()
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(failed != 0)
