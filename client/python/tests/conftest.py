"""What the tests share: a server of the real programs, and a stand-in that says what a test wants."""
import os
import socket
import sys
import threading
import time

import pytest
import torch
import zmq

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.dirname(HERE))
os.environ.setdefault("EXPERTD_BIN_DIR", os.path.join(ROOT, os.environ.get("BUILD", "build"), "bin"))

import expertd  # noqa: E402
from expertd import messages  # noqa: E402
from expertd.group import free_port  # noqa: E402
from expertd.server import Server  # noqa: E402
from expertd.transport import transport  # noqa: E402

torch.manual_seed(0)
torch.set_num_threads(1)

PATIENCE = 300.0  # seconds that only a hang reaches


def make_server(experts, blocks=(), uids=None, **options):
    """A server with these entries of `experts` and `blocks`, ready; uids: of them, where entries have patterns."""
    uids = uids or [entry["uid"] for entry in experts]
    config = {
        "server": {"name": f"pytest-{os.getpid()}-{free_port()}"},
        "frontend": {"listen": [f"tcp://127.0.0.1:{free_port()}"], "restart_grace": 200},
        "devices": [{"name": "device0"}],
        "experts": experts,
        "dht": {"listen": f"tcp://127.0.0.1:{free_port()}", "port": 0, "update_period": 1, "expiration": 60},
    }
    if blocks:
        config["blocks"] = list(blocks)
    for section, values in options.items():
        config[section] = {**config.get(section, {}), **values}
    return Server(config, uids=uids, start=True)


def ffn(uid, **options):
    return {"uid": uid, "block": "ffn", "hidden_dim": 16, "max_batch_size": 64, "optimizer": "none", **options}


@pytest.fixture(scope="session")
def server():
    """ffn.0.0 ... ffn.2.2 do not learn; learner.0 and learner.1 do; nop.0 gives back its input of 1024 floats."""
    experts = [ffn(f"ffn.{i}.{j}", seed=10 * i + j) for i in range(3) for j in range(3)]
    experts += [ffn(f"learner.{i}", optimizer="sgd", learning_rate=0.05) for i in range(2)]
    experts += [{"uid": "nop.0", "block": "nop", "hidden_dim": 1024, "max_batch_size": 1024}]
    with make_server(experts) as running:
        yield running


@pytest.fixture
def client(server):
    return expertd.Client(server.endpoint, timeout=PATIENCE)


class StandIn:
    """A server written from PROTOCOL.md: answer(request, frames) returns the reply's header and its frames, or None for
    no reply; what it raises is a reply, too, and stop() raises it. INFO is answered here: one expert, x of `row_shape` floats;
    and PING by `pong`. `requests` are all others that came."""

    def __init__(self, answer):
        self.answer, self.requests, self.failures = answer, [], []
        self.row_shape = [4]
        self.pong = messages.server.Pong(server="stand-in")
        self.context = zmq.Context()
        self.socket, self.port = self.bind()
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        self.stopping = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def bind(self):
        """A process knows its servers by their endpoints: at that of one that is gone, the next is "down" at first."""
        others, known = [], {connection.endpoint for connection in transport().connections()}
        while True:
            socket = self.context.socket(zmq.ROUTER)
            socket.linger = 0
            port = socket.bind_to_random_port("tcp://127.0.0.1")
            if f"tcp://127.0.0.1:{port}" not in known:
                break
            others.append(socket)  # bound until there is another
        for other in others:
            other.close(0)
        return socket, port

    def run(self):
        pb = messages.server
        while not self.stopping:
            if not self.socket.poll(20):
                continue
            identity, header, *frames = self.socket.recv_multipart()
            request = pb.RequestHeader.FromString(header)
            if request.method == pb.value("Method", "PING"):  # a client asks by itself whether there is shared memory
                reply = pb.ReplyHeader(version=1, request_id=request.request_id, pong=self.pong)
                self.socket.send_multipart([identity, reply.SerializeToString()])
                continue
            self.requests.append(request)
            if request.method == pb.value("Method", "INFO"):
                schema = pb.Schema(tensors=[{"name": "x", "dtype": 1, "row_shape": self.row_shape}])
                reply = pb.ReplyHeader(version=1, info=pb.ExpertInfo(uid=request.uid, block="nop", forward_schema=schema,
                                                                     outputs_schema=schema, max_batch_size=64)), []
            else:
                reply = self.answer_or_fail(request, frames)
            if reply is None:
                continue
            if isinstance(reply[0], bytes):
                self.socket.send_multipart([identity, reply[0], *reply[1]])
            else:
                reply[0].request_id = request.request_id
                self.socket.send_multipart([identity, reply[0].SerializeToString(), *reply[1]])

    def answer_or_fail(self, request, frames):
        try:
            return self.answer(request, frames)
        except Exception as failure:
            self.failures.append(failure)
            pb = messages.server
            return pb.ReplyHeader(version=1, status=pb.value("Status", "INTERNAL"), message=f"the stand-in: {failure!r}"), []

    def asked(self, method):
        return [r for r in self.requests if r.method == messages.server.value("Method", method)]

    def stop(self):
        self.stopping = True
        self.thread.join()
        self.socket.close(0)
        self.context.term()
        if self.failures:
            raise self.failures[0]


@pytest.fixture
def stand_in():
    made = []

    def make(answer):
        made.append(StandIn(answer))
        return made[-1]
    yield make
    for one in made:
        one.stop()


def in_threads(count, work):
    """work(0) ... work(count - 1) beside each other; when all have ended."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def echo(request, frames):
    """The inputs come back: of a backward the first."""
    return messages.server.ReplyHeader(version=1, tensors=request.tensors[:1], parts=[{} for _ in request.parts]), frames[:1]


def refusal(status, message="why not"):
    return messages.server.ReplyHeader(version=1, status=status, message=message), []


class Proxy:
    """Carries bytes between clients and a port of this host. `open`: cleared, nothing moves. What goes in the direction
    `slow` ("up": to the server) is slow for `seconds` from when begin_slowly() is called, but never stands still. Only so
    many connections as `admits` come to the server; the others are held, and hear nothing, until admit()."""

    CHUNK, PAUSE = 16 << 10, 0.02  # 800 KB/s

    def __init__(self, port, slow="", seconds=0.0, admits=1 << 30):
        self.admits, self.held = admits, []
        self.target, self.slow, self.seconds, self.slow_until = ("127.0.0.1", port), slow, seconds, 0.0
        self.open = threading.Event()
        self.open.set()
        self.accepted, self.sockets = 0, []
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)  # what it accepts inherits it
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.endpoint = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def begin_slowly(self):
        self.slow_until = time.monotonic() + self.seconds

    def admit(self, connections):
        self.admits = connections
        for one in self.held:
            one.shutdown(socket.SHUT_RDWR)

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            if self.accepted >= self.admits:
                self.held.append(client)
                continue
            self.accepted += 1
            server = socket.create_connection(self.target)
            self.sockets += [client, server]
            for direction, source, sink in (("up", client, server), ("down", server, client)):
                threading.Thread(target=self.carry, args=(direction, source, sink), daemon=True).start()

    def carry(self, direction, source, sink):
        try:
            while True:
                chunk = source.recv(self.CHUNK)
                self.open.wait()
                if not chunk:
                    break
                sink.sendall(chunk)
                if direction == self.slow and time.monotonic() < self.slow_until:
                    time.sleep(self.PAUSE)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        self.open.set()
        for one in [self.listener, *self.sockets, *self.held]:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()


@pytest.fixture
def proxy():
    made = []

    def make(*args, **options):
        made.append(Proxy(*args, **options))
        return made[-1]
    yield make
    for one in made:
        one.stop()
