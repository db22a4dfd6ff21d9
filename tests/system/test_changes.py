#!/usr/bin/env python3
# timeout: 900
"""Experts are loaded, unloaded, set and reloaded while others are asked: of whose requests every answer is looked at."""
import json
import os
import signal
import subprocess
import threading

from support_server import BIN, PATIENCE, Client, Server, pb, until

OLD = "{uid: \"old.[0:3]\", block: nop, hidden_dim: 4, max_batch_size: 64}"
TRAINED = "{uid: ffn.0, block: ffn, hidden_dim: 16, max_batch_size: 8, optimizer: sgd, learning_rate: 0.5}"
STEADY = "{uid: steady.0, block: nop, hidden_dim: 4, max_batch_size: 64}"
SENT = b"\0\0\x80?" * 8


class Load:
    """Somebody who asks steady.0 all the time, and gets what it must give."""

    def __init__(self, server):
        self.client, self.answers, self.wrong, self.over = server.client(), 0, [], False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over and not self.wrong:
            self.client.send(pb.FORWARD, "steady.0", rows=2)
            if not self.client.socket.poll(PATIENCE * 1000):
                self.wrong.append("no answer")
                break
            header, *tensors = self.client.socket.recv_multipart()
            reply = pb.ReplyHeader.FromString(header)
            if reply.status != pb.OK or tensors != [SENT]:
                self.wrong.append((reply.status, reply.message, tensors))
            self.answers += 1

    def end(self):
        self.over = True
        self.thread.join()
        self.client.close()
        assert not self.wrong, f"an expert that was not touched answered: {self.wrong}"
        assert self.answers > 0


def run(server, *words, status=0, said=None):
    """expertctl, as the server's owner; its JSON."""
    ended = subprocess.run([f"{BIN}/expertctl", "--json", "--run-dir", server.run_dir, "--server", server.name, *words],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert ended.returncode == status, f"{words}: {ended.returncode}, {ended.stdout} {ended.stderr}"
    answer = json.loads(ended.stdout)
    if said:
        assert said in answer["message"], answer["message"]
    return answer


def uids(client):
    return sorted(e.uid for e in client.call(pb.LIST).list.experts)


def ask(client, uid, rows=2):
    return client.call(pb.FORWARD, uid, rows=rows).status


def write(server, *experts):
    with open(server.config) as file:
        head = file.read().split("experts:\n")[0]
    with open(server.config + ".new", "w") as file:
        file.write(head + "experts:\n" + "".join(f"  - {e}\n" for e in experts))
    os.rename(server.config + ".new", server.config)


def test_changes():
    with Server([STEADY, OLD, TRAINED]) as server:
        with open(server.config, "a") as file:
            file.write(f"checkpoint: {{dir: {server.folder}/ck, interval: 0}}\n")
        server.start().wait_alive()
        load, client = Load(server), server.client()
        first = uids(client)
        assert first == ["ffn.0", "old.0", "old.1", "old.2", "steady.0"], first
        generation = client.call(pb.LIST).list.generation

        # One more, one less.
        assert run(server, "load", "new.7", "block=nop", "hidden_dim=4", "max_batch_size=16")["loaded"] == 1
        assert ask(client, "new.7") == pb.OK and "new.7" in uids(client)
        assert client.call(pb.LIST).list.generation != generation
        assert run(server, "unload", "old.1")["unloaded"] == 1
        assert ask(client, "old.1") == pb.NOT_FOUND and ask(client, "old.2") == pb.OK
        assert run(server, "load", "old.1")["loaded"] == 1  # as the configuration has it
        assert ask(client, "old.1") == pb.OK

        # Refused, and nothing is changed.
        before = uids(client)
        run(server, "load", "old.1", status=9, said="already")
        run(server, "load", "other.1", status=4, said="block=")
        run(server, "unload", "other.1", status=4, said="no expert")
        run(server, "load", "x.1", "hiden_dim=4", status=5, said="'hidden_dim' meant")
        run(server, "load", "x.1", "block=ffm", status=5, said="is 'ffn' meant")
        run(server, "load", "x.1", "block=ffn", "hidden_dim=4", "min_batch_size=9", "max_batch_size=8", status=5,
            said="above max_batch_size")
        run(server, "load", "x.1", "block=ffn", "hidden_dim=16", f"weights={server.folder}/none", status=5, said="none")
        run(server, "load", "x.1", "block=ffn", "hidden_dim=262144", "max_batch_size=8", status=7, said="MiB")
        run(server, "set", "ffn.0", "hidden_dim=32", status=5, said="cannot be changed")
        run(server, "set", "ffn.0", "learning_rate=fast", status=5, said="not a number")
        refused = Client(server.endpoint)
        assert uids(refused) == before

        # Over TCP, or by another user, nobody changes anything; here by the frontend's own ipc endpoint one may.
        refused.close()

        # A living expert goes on with what it has learned.
        assert client.call(pb.BACKWARD, "ffn.0", rows=2, columns=16, tensors=2).status == pb.OK
        assert run(server, "set", "ffn.0", "learning_rate=0.25")["set"] == 1
        info = client.call(pb.INFO, "ffn.0").info
        assert (info.learning_rate, info.update_count) == (0.25, 1), info

        # What it has learned is saved when it goes, and there when it comes again.
        assert run(server, "unload", "ffn.0")["unloaded"] == 1
        assert os.listdir(f"{server.folder}/ck/ffn.0"), "no checkpoint"
        assert run(server, "load", "ffn.0")["loaded"] == 1
        info = client.call(pb.INFO, "ffn.0").info
        assert (info.learning_rate, info.update_count) == (0.5, 1), info
        load.end()

        # Who dies comes back with what is live.
        run(server, "unload", "old.2")
        before = uids(client)
        for program in ("runtime", "frontend"):
            server.kill(program)
            server.start(program)
            server.wait_alive()
            other = server.client()
            assert uids(other) == before, uids(other)
            assert ask(other, "new.7") == pb.OK and ask(other, "old.2") == pb.NOT_FOUND
            other.close()

        # The configuration again: what was changed by hand is gone, and what is new in it is there.
        load, client = Load(server), server.client()
        write(server, STEADY, OLD.replace("0:3", "1:4"), TRAINED.replace("0.5", "0.125"))
        with open(server.config, "a") as file:
            file.write(f"checkpoint: {{dir: {server.folder}/ck, interval: 60}}\n")
        answer = run(server, "reload")
        assert (answer["loaded"], answer["unloaded"], answer["set"], answer["replaced"]) == (2, 2, 1, 0), answer
        assert "checkpoint" in answer["note"], answer
        assert uids(client) == ["ffn.0", "old.1", "old.2", "old.3", "steady.0"]
        assert client.call(pb.INFO, "ffn.0").info.learning_rate == 0.125
        write(server, STEADY, OLD.replace("0:3", "1:4").replace("max_batch_size: 64", "max_batch_size: 32"))
        answer = run(server, "reload")
        assert (answer["unloaded"], answer["replaced"]) == (1, 3), answer
        assert client.call(pb.INFO, "old.2").info.max_batch_size == 32 and ask(client, "old.2") == pb.OK
        before = uids(client)
        with open(server.config, "a") as file:
            file.write("  - {uid: steady.0, block: nop}\n")
        run(server, "reload", status=5, said="already")
        with open(server.config, "w") as file:
            file.write("nonsense: [")
        run(server, "reload", status=5)
        assert uids(client) == before and ask(client, "old.3") == pb.OK
        load.end()
        server.stop()
        assert not server.segments(), server.segments()


def test_owner():
    """Over TCP there are no changes, whoever asks."""
    with Server([STEADY], endpoint="tcp://127.0.0.1:*") as server:
        server.start()
        until(lambda: "listening on tcp" in server.log("frontend"), "the frontend listens")
        line = [l for l in server.log("frontend").splitlines() if "listening on tcp" in l][0]
        server.endpoint = line.split("listening on ")[1]
        server.wait_alive()
        client = server.client()
        reply = client.call(pb.LOAD, "new.1", settings=["block=nop"])
        assert reply.status == pb.INVALID_ARGUMENT and "own user" in reply.message, reply
        assert uids(client) == ["steady.0"]
        server.stop()


def test_killed_in_the_middle():
    """A runtime that is killed while it makes what is to come leaves nothing half done."""
    many = "{uid: \"many.[0:200]\", block: ffn, hidden_dim: 64, max_batch_size: 8}"
    with Server([STEADY]) as server:
        server.start().wait_alive()
        client = server.client()
        write(server, STEADY, many.replace("0:200", "0:60"))
        asking = subprocess.Popen([f"{BIN}/expertctl", "--run-dir", server.run_dir, "--server", server.name, "reload"],
                                  stderr=subprocess.PIPE, text=True)
        until(lambda: os.path.exists(f"{server.run_dir}/{server.name}.proposal.yaml") or asking.poll() is not None,
              "the change begins")
        server.running["runtime"].send_signal(signal.SIGKILL)
        server.running["runtime"].wait()
        status = asking.wait(PATIENCE)
        write(server, STEADY)  # as it was: what is live counts
        server.start("runtime").wait_alive()
        now = uids(client)
        assert now == ["steady.0"] if status else len(now) == 61, (status, now)
        assert ask(client, "steady.0") == pb.OK
        server.stop()
        assert not server.segments(), server.segments()


def test_found():
    """The DHT tells of what is loaded, and no more of what is unloaded: at once, and not with the next heartbeat, which is an
    hour away."""
    with Server([STEADY]) as server:
        dht = f"ipc://{server.folder}/dht"
        with open(server.config, "a") as file:
            file.write(f'dht: {{listen: "{dht}", port: 0, network_id: {os.getpid()}, address: 127.0.0.1, update_period: 3600}}\n')
        with open(server.config) as file:
            text = file.read().replace(f'listen: ["{server.endpoint}"]',
                                       f'listen: ["{server.endpoint}"], advertise: "tcp://127.0.0.1:9"')
        with open(server.config, "w") as file:
            file.write(text)
        server.start("frontend", "runtime", "dht").wait_alive()

        def found():
            said = subprocess.run([f"{BIN}/expertctl", "--json", "--dht", dht, "search", "new."], stdout=subprocess.PIPE,
                                  text=True, timeout=PATIENCE, check=True)
            return json.loads(said.stdout)["prefixes"][0]["experts"]

        until(lambda: found() == [], "the directory answers")
        run(server, "load", "new.7", "block=nop", "hidden_dim=4")
        until(lambda: found() == [[7, 8]], "what was loaded is found")
        run(server, "unload", "new.7")
        until(lambda: found() == [], "what was unloaded is not found")
        server.stop("dht", "runtime", "frontend")


if __name__ == "__main__":
    test_changes()
    if os.path.exists(f"{BIN}/expertd-dht"):  # which is left out where a package is missing
        test_found()
    test_owner()
    test_killed_in_the_middle()
