#!/usr/bin/env python3
"""Walks all points of common/failpoint.h under load: the process dies, stops or fails there, and each promise of the table
in docs/running.md is looked at. Only instrumented builds have the points."""
# timeout: 1800
# instrumented: others have no failpoints
import os, re, signal, subprocess, time

from support_ports import free_port
from support_server import BIN, PATIENCE, ROOT, Client, Server, pb, until

with open(f"{BIN}/expertd-frontend", "rb") as program:
    if b"EXPERTD_FAILPOINT" not in program.read():
        print("skipped: this build has no failpoints (make check SANITIZE=address,undefined, or FAILPOINTS=1)")
        raise SystemExit(77)

# Point: the process that comes to it, what happens there, at which of its visits.
POINTS = {
    "ring.claim": ("frontend", "kill stop fail", 7),
    "ring.commit": ("frontend", "kill stop", 7),
    "ring.take": ("runtime", "kill stop", 2),
    "batch": ("runtime", "kill stop fail", 2),
    "optimizer.step": ("runtime", "kill stop fail", 1),
    "ring.apply": ("runtime", "kill stop", 1),
    "ring.done": ("runtime", "kill stop", 2),
    "checkpoint.write": ("runtime", "kill stop fail", 1),
    "checkpoint.fsync": ("runtime", "kill stop fail", 1),
    "checkpoint.rename": ("runtime", "kill stop fail", 1),
    "control.publish": ("runtime", "kill", 1),
    "pool.adopt": ("runtime", "kill fail", 2),
    "dht.publish": ("dht", "kill stop fail", 1),
    "dht.tell": ("dht", "kill stop fail", 1),
}
ELSEWHERE = {"device.lost"}  # test_devices.py
EXPERTS = ["{uid: nop.0, block: nop, hidden_dim: 4, max_batch_size: 8}",
           "{uid: ffn.0, block: ffn, hidden_dim: 4, max_batch_size: 8, optimizer: sgd, learning_rate: 0}"]
MANY = 24


def every_point_is_walked():
    found = set()
    for folder in ("common", "pools", "frontend", "runtime", "dht"):
        for path, _, files in os.walk(os.path.join(ROOT, folder)):
            for name in files:
                if name.endswith((".c", ".h", ".cpp")):
                    with open(os.path.join(path, name)) as source:
                        found |= set(re.findall(r'FAILPOINT(?:_OF)?\("([^"]+)"', source.read()))
    assert found == set(POINTS) | ELSEWHERE, f"points without a line here, or lines without a point: {found ^ set(POINTS) ^ ELSEWHERE}"


class Load:
    """Forwards and backwards from two clients, each repeated under its ids until it is answered for good."""
    turn = 0

    def __init__(self, server):
        Load.turn += 1
        self.server, self.open, self.answers = server, {}, {}
        self.clients = [server.client() for _ in range(2)]
        self.ids = [b"%d of load %06d." % (i, Load.turn) for i in range(2)]
        for number in range(MANY):
            self.open[number] = (pb.BACKWARD if number % 2 else pb.FORWARD, "ffn.0" if number % 4 > 1 else "nop.0")
        self.send(self.open)

    def send(self, numbers):
        for number in list(numbers):
            method, uid = self.open[number]
            who = number // 2 % 2
            self.clients[who].send(method, uid, 1, 4, 2 if method == pb.BACKWARD else 1, request_id=number + 1, client_id=self.ids[who][:16])

    def take(self, wait_ms):
        """Answers that are there, or come within the time; what is not final is open still. Those to be repeated."""
        again = []
        for client in self.clients:
            while client.socket.poll(wait_ms):
                header, *tensors = client.socket.recv_multipart()
                reply = pb.ReplyHeader.FromString(header)
                number = reply.request_id - 1
                assert number in self.open or number in self.answers, reply
                if number not in self.open:
                    continue  # a first answer beside that of its repeat
                method, uid = self.open[number]
                allowed = {pb.OK, pb.UNAVAILABLE, pb.RESOURCE_EXHAUSTED, pb.INTERNAL, pb.DEADLINE_EXCEEDED}
                assert reply.status in allowed or (method == pb.BACKWARD and reply.status == pb.ALREADY_EXISTS), reply
                if reply.status == pb.OK and uid == "nop.0":
                    assert tensors == [b"\0\0\x80?" * 4], "a wrong answer"
                if reply.status in (pb.OK, pb.ALREADY_EXISTS):
                    self.answers[number] = self.open.pop(number)
                else:
                    again.append(number)
                wait_ms = 0
        return again

    def finish(self):
        """All is answered in the end."""
        end = time.monotonic() + PATIENCE
        resend = set()
        quiet = 0
        while self.open:
            assert time.monotonic() < end, f"never answered: {self.open}"
            resend |= set(self.take(100))
            quiet += 1
            if resend or quiet % 20 == 0:  # what a frontend took with it is never answered
                time.sleep(0.05)
                self.send(resend & set(self.open) or self.open)
                resend = set()
        for client in self.clients:
            client.close()


def stopped(process):
    with open(f"/proc/{process.pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "T"


def alive(server):
    """The experts are alive, and the process of the point is the one that answers."""
    server.wait_alive()


def start(server, program, point=None):
    environment = dict(os.environ)
    environment.pop("EXPERTD_FAILPOINT", None)
    if point:
        environment["EXPERTD_FAILPOINT"] = point
    server.start(program, env=environment)


def answers_without_hanging(server):
    """While the process stands still: a call to its expert is refused, or waits for its deadline, and others are served."""
    client = server.client()
    assert client.call(pb.PING).status == pb.OK
    status = client.call(pb.FORWARD, "nop.0", 1, 4, deadline_ms=3000).status
    assert status in (pb.OK, pb.UNAVAILABLE, pb.DEADLINE_EXCEEDED), status
    client.close()


def resolved(server):
    return subprocess.run([f"{BIN}/expertctl", "--dht", f"ipc://{server.folder}/dht", "--timeout", "5", "resolve", "nop.0"],
                          capture_output=True, text=True).stdout.strip().endswith(server.endpoint_published)


def walk(server, name, program, action, visit):
    process = server.running[program]
    if name == "pool.adopt":
        server.kill(program)
    else:
        process.terminate()
        process.wait(PATIENCE)
    start(server, program, f"{name}={action}@{visit}")
    process = server.running[program]
    at_start = name in ("control.publish", "pool.adopt")
    if program != "dht" and not at_start:
        until(lambda: process.poll() is not None or server_is_up(server), "the server is up")
    if program == "dht":
        # Another directory asks, so that this one has to tell.
        with open(server.folder + "/asker.log", "a") as log:
            asker = subprocess.Popen([f"{BIN}/expertd-dht", "--server-name", server.name + "-asker", "--server-run-dir", server.run_dir,
                                      "--dht-listen", f"ipc://{server.folder}/asker", "--dht-port", "0", "--dht-address", "127.0.0.1",
                                      "--dht-frontend", "none", "--dht-bootstrap", f"127.0.0.1:{server.dht_port}"], stderr=log)
        try:
            until(lambda: happened(process, action) or ask(server), "it came to the point")
        finally:
            asker.terminate()
            asker.wait(PATIENCE)
    load = Load(server) if program != "dht" else None
    if name.startswith("checkpoint."):
        client = server.client()
        client.send(pb.BACKWARD, "ffn.0", 1, 4, 2)
        client.receive()
        client.send(pb.CHECKPOINT)
        if action == "fail":
            assert client.receive().status == pb.INTERNAL, "a checkpoint that failed is said to have"
        else:
            until(lambda: happened(process, action), f"{name} {action}")
        client.close()
    elif action != "fail" and program != "dht":
        until(lambda: happened(process, action) or (load.take(1) and False), f"{name} {action}")
    if action == "kill":
        assert process.wait(PATIENCE) == -signal.SIGKILL
        start(server, program)
    elif action == "stop":
        if program == "runtime" and not name.startswith("checkpoint."):
            answers_without_hanging(server)
        os.kill(process.pid, signal.SIGCONT)
    if load:
        load.finish()
    alive(server)
    if program == "dht":
        until(lambda: resolved(server), "it is found again")
    client = server.client()
    assert client.call(pb.FORWARD, "nop.0", 1, 4).status == pb.OK
    if program == "runtime" and name.startswith("checkpoint."):
        until(lambda: client.call(pb.CHECKPOINT).status == pb.OK, "the next checkpoint is written")
    info = client.call(pb.INFO, "nop.0").info
    assert info.examples_processed <= Server.rows + MANY // 2, "more was applied than was asked for"
    Server.rows += MANY // 2
    client.close()


def happened(process, action):
    if action == "stop":
        return process.poll() is None and stopped(process)
    return action == "fail" or process.poll() is not None


def ask(server):
    subprocess.run([f"{BIN}/expertctl", "--dht", f"ipc://{server.folder}/asker", "--timeout", "2", "resolve", "nop.0"], capture_output=True)
    return False


def server_is_up(server):
    client = server.client()
    try:
        client.send(pb.PING)
        if not client.socket.poll(500):
            return False
        pong = client.receive().pong
        return pong.experts and pong.experts == pong.experts_alive
    finally:
        client.close()


every_point_is_walked()
Server.rows = 0
with Server(EXPERTS, "stall_timeout: 1000, restart_grace: 60000, advertise: 'tcp://127.0.0.1:9'") as server:
    server.dht_port = free_port()
    server.endpoint_published = "tcp://127.0.0.1:9"
    with open(server.config, "a") as file:
        file.write(f"checkpoint: {{dir: {server.folder}/checkpoints, interval: 0}}\n"
                   f"dht: {{listen: 'ipc://{server.folder}/dht', port: {server.dht_port}, address: 127.0.0.1, update_period: 0.5}}\n")
    server.start("frontend", "runtime", "dht")
    server.wait_alive()
    for name, (program, actions, visit) in POINTS.items():
        for action in actions.split():
            begin = time.monotonic()
            walk(server, name, program, action, visit)
            print(f"{name} {action}: {time.monotonic() - begin:.1f} s", flush=True)
    server.stop("dht", "runtime", "frontend")
    assert not server.segments(), server.segments()
    assert not [f for _, _, files in os.walk(server.folder + "/checkpoints") for f in files if f.startswith(".") and f != ".lock"], "temporary files"
print("every point was walked")
