#!/usr/bin/env python3
"""A server with keys: who is let in, as what, and who is not; strangers, downgrades, floods, a folder that changes."""
# timeout: 900
import json, os, shutil, socket, subprocess

from support_ports import free_port
from support_server import BIN, PATIENCE, Client, Server, pb, until, zmq

if not zmq.has("curve"):
    print("skipped: libzmq without CURVE")
    raise SystemExit(77)

BUDGET = 64 << 20
EXPERTS = ["{uid: nop.0, block: nop, hidden_dim: 4, max_batch_size: 8}"]


def expertctl(*arguments, **environment):
    return subprocess.run([f"{BIN}/expertctl", *arguments], capture_output=True, text=True, timeout=2 * PATIENCE,
                          env={**os.environ, **environment})


def keygen(path, *options):
    made = expertctl("keygen", path, *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def keys_of(path):
    """pyzmq's own reader of czmq's format."""
    import zmq.auth
    public, secret = zmq.auth.load_certificate(path + "_secret")
    return public, secret


class Keyed(Client):
    def __init__(self, endpoint, server_key, certificate=None, identity=None):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        if identity:
            self.socket.setsockopt(zmq.IDENTITY, identity)
        if server_key:
            self.socket.curve_serverkey = server_key.encode()
            self.socket.curve_publickey, self.socket.curve_secretkey = keys_of(certificate) if certificate else zmq.curve_keypair()
        self.socket.connect(endpoint)
        self.last_id = 0


def silent(client):
    """A ping that must not be answered, while a known client's are."""
    client.send(pb.PING)
    known = trainer_client()
    for _ in range(3):
        assert known.call(pb.PING).status == pb.OK
    known.close()
    assert not client.socket.poll(200), "an answer to somebody who is not known"
    client.close()


with Server(EXPERTS, f"max_memory: {BUDGET}", f"tcp://127.0.0.1:{free_port()}") as server:
    folder = server.folder
    clients = folder + "/clients"
    os.mkdir(clients)
    server_key = keygen(folder + "/server", "--name", "box")
    other_key = keygen(folder + "/other")
    assert expertctl("keygen", folder + "/server").returncode == 10, "a key is not overwritten"
    assert expertctl("keygen", folder + "/x", "--role", "king").returncode == 2
    for role in ("reader", "trainer", "operator"):
        keygen(f"{folder}/{role}", "--role", role)
        os.link(f"{folder}/{role}", f"{clients}/{role}")
    keygen(folder + "/late", "--role", "trainer")
    with open(server.config) as file:
        text = file.read()
    with open(server.config, "w") as file:
        file.write(text.replace("server: {", f"server: {{key_file: {folder}/server, clients: {clients}, "))

    def with_keys(role, key=server_key):
        return {"EXPERTD_ENDPOINT": server.endpoint, "EXPERTD_SERVER_KEY": key, "EXPERTD_KEY_FILE": f"{folder}/{role}"}

    def trainer_client():
        return Keyed(server.endpoint, server_key, folder + "/trainer")

    with open(server.config, "a") as file:
        file.write(f"dht: {{listen: 'ipc://{folder}/dht', port: 0, address: 127.0.0.1, update_period: 0.5}}\n")
    server.start("frontend", "runtime", "dht")
    waited = expertctl("wait", "--timeout", str(PATIENCE), **with_keys("reader"))
    assert waited.returncode == 0, waited.stderr

    # Roles.
    allowed = {"reader": (pb.PING, pb.LIST, pb.INFO, pb.FORWARD), "trainer": (pb.BACKWARD, pb.STATS), "operator": (pb.CHECKPOINT,)}
    may = set()
    for role in ("reader", "trainer", "operator"):
        client = Keyed(server.endpoint, server_key, f"{folder}/{role}")
        may |= set(allowed[role])
        for method in sum(allowed.values(), ()):
            tensors = {pb.FORWARD: 1, pb.BACKWARD: 2}.get(method, 0)
            reply = client.call(method, "nop.0" if tensors or method == pb.INFO else "", rows=1 if tensors else 0, tensors=tensors)
            assert (reply.status == pb.PERMISSION_DENIED) == (method not in may), (role, method, reply)
            if tensors and method in may:
                assert reply.status == pb.OK, reply
        client.close()
    # By files as by environment; the server's own key is an operator's.
    for key in (server_key, folder + "/server"):
        done = expertctl("stats", "--json", "--endpoint", server.endpoint, "--server-key", key, "--key-file", folder + "/server")
        assert done.returncode == 0, done.stderr
    denied = expertctl("checkpoint", **with_keys("trainer"))
    assert denied.returncode == 11 and "operator's" in denied.stderr, denied
    assert expertctl("ping", "--key-file", folder + "/nowhere", "--endpoint", server.endpoint).returncode == 10

    # The DHT's look-ups are guarded likewise, and tell the frontend's key.
    def resolve(**environment):
        done = expertctl("resolve", "nop.0", "--json", "--timeout", "5", EXPERTD_DHT=f"ipc://{folder}/dht", **environment)
        return json.loads(done.stdout), done.returncode

    found = until(lambda: next((r for r in resolve(**with_keys("reader"))[0].get("experts", []) if r["endpoints"]), None), "the DHT has it")
    assert found["endpoints"] == [server.endpoint] and found["server_keys"] == [server_key], found
    assert resolve()[1] == 3 and resolve(**with_keys("late"))[1] == 3

    # Strangers: without a key, with one that nobody knows, with a wrong one for the server.
    known = trainer_client()
    before = known.counters()
    silent(Keyed(server.endpoint, None))
    silent(Keyed(server.endpoint, server_key))
    silent(Keyed(server.endpoint, other_key, folder + "/trainer"))

    def told(text, *arguments, **environment):
        """On a busy machine a second may be over before the handshake has failed."""
        done = expertctl("ping", "--timeout", "1", *arguments, **environment)
        assert done.returncode == 3, done
        return text in done.stderr

    until(lambda: told("asks for keys", "--endpoint", server.endpoint), "a plain client is told why")
    until(lambda: told("does not know this client's key", **with_keys("late")), "a stranger is told why")
    until(lambda: known.counters()["frontend.handshakes.refused"] >= before["frontend.handshakes.refused"] + 2, "unknown keys are counted")
    until(lambda: known.counters()["frontend.handshakes.failed"] > before["frontend.handshakes.failed"], "other handshakes are counted")

    # A key comes, changes and goes, without a restart.
    late = Keyed(server.endpoint, server_key, folder + "/late")
    os.link(folder + "/late", clients + "/late")
    until(lambda: expertctl("ping", "--timeout", "5", **with_keys("late")).returncode == 0, "a new key is known")
    late.close()
    late = Keyed(server.endpoint, server_key, folder + "/late")
    assert late.call(pb.BACKWARD, "nop.0", rows=1, tensors=2).status == pb.OK
    with open(folder + "/late") as file:
        demoted = file.read().replace("trainer", "reader")
    with open(clients + "/new", "w") as file:
        file.write(demoted)
    os.rename(clients + "/new", clients + "/late")
    until(lambda: late.call(pb.BACKWARD, "nop.0", rows=1, tensors=2).status == pb.PERMISSION_DENIED, "a role changes on a connection")
    os.unlink(clients + "/late")

    def is_out():
        late.send(pb.PING)
        return not late.socket.poll(1000) or late.receive().status == pb.PERMISSION_DENIED

    until(is_out, "a key that is gone does not count on a connection")
    late.close()

    # A routing id is no proof: whoever takes another's gets neither its rights nor its answers.
    first = Keyed(server.endpoint, server_key, folder + "/operator", identity=b"me")
    assert first.call(pb.STATS).status == pb.OK
    second = Keyed(server.endpoint, server_key, folder + "/reader", identity=b"me")
    second.send(pb.STATS)
    for _ in range(5):
        assert first.call(pb.STATS).status == pb.OK
    assert not second.socket.poll(200) or second.receive().status == pb.PERMISSION_DENIED
    first.close(), second.close()

    # A message of many frames, whose end is not seen before it is there, is cut short when it takes too much memory; who
    # has sent as much in whole messages is not.
    def is_cut_short():
        large.socket.send_multipart([block] * (16 * BUDGET >> 20), copy=False)
        while known.counters()["frontend.closed.large"] == before:
            if large.socket.poll(0):  # it was faster than the server looks
                return not large.receive()
        return True

    if "address" not in os.environ.get("BUILD", ""):  # whose allocator keeps what is freed
        large, block = Keyed(server.endpoint, server_key, folder + "/reader"), bytes(1 << 20)
        assert large.call(pb.PING).status == pb.OK
        for _ in range(12):
            known.socket.send_multipart([block] * (BUDGET >> 23), copy=False)
            assert known.receive().status == pb.INVALID_ARGUMENT
        before = known.counters()["frontend.closed.large"]
        until(is_cut_short, "a message of many large frames is ended")
        large.close()
        assert known.counters()["frontend.closed.large"] == before + 1

        # At the look-ups' socket, too: there nobody needs so much in any number of messages.
        def closed_by_dht():
            done = expertctl("stats", "--json", EXPERTD_DHT=f"ipc://{folder}/dht", **with_keys("trainer"))
            assert done.returncode == 0, done
            return json.loads(done.stdout)["dht"]["dht.closed_large"]

        before, large = closed_by_dht(), Keyed(f"ipc://{folder}/dht", server_key, folder + "/reader")
        large.socket.send_multipart([block * 8] * 48, copy=False)
        until(lambda: closed_by_dht() == before + 1, "a message of many large frames is ended there")
        large.close()

    # Handshakes that nobody finishes, and a crowd of strangers, keep nobody waiting for good.
    host, number = server.endpoint[len("tcp://"):].split(":")
    half = [socket.create_connection((host, int(number))) for _ in range(200)]
    for i, connection in enumerate(half):
        connection.sendall((b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32))[:1 + i % 64])
        if i % 4 == 0:
            connection.sendall(b"\x04\xc8\x05HELLO" + os.urandom(194))
    crowd = [Keyed(server.endpoint, server_key) for _ in range(50)]
    for _ in range(20):
        fresh = trainer_client()
        assert fresh.call(pb.FORWARD, "nop.0", rows=1).status == pb.OK
        fresh.close()
    for connection in (half[1], half[63]):  # in the middle of a greeting, and behind it: the server ends them
        connection.settimeout(PATIENCE)
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
    for connection in half:
        connection.close()
    for stranger in crowd:
        assert not stranger.socket.poll(0)
        stranger.close()
    assert known.call(pb.PING).status == pb.OK
    known.close()
    server.stop("dht", "runtime", "frontend")

    # Downgrade: a client that was given a key does not speak to a server without one.
    with open(server.config, "w") as file:
        file.write(text)
    server.start("frontend", "runtime")
    server.wait_alive()
    down = expertctl("ping", "--timeout", "1", **with_keys("trainer"))
    assert down.returncode == 3, down
    server.stop()

    # A public key that is not the secret one's would be told to clients.
    with open(folder + "/server_secret") as file, open(folder + "/mixed_secret", "w") as mixed:
        os.fchmod(mixed.fileno(), 0o600)
        mixed.write(file.read().replace(server_key, other_key))
    shutil.copy(folder + "/other", folder + "/mixed")
    with open(folder + "/mixed.yaml", "w") as file:
        file.write(f"server: {{name: x, run_dir: {folder}/run-x, key_file: {folder}/mixed}}\nfrontend: {{listen: ['ipc://{folder}/x']}}\n")
    started = subprocess.Popen([f"{BIN}/expertd-frontend", "--config", folder + "/mixed.yaml"], stderr=subprocess.PIPE, text=True)
    try:
        said = started.communicate(timeout=PATIENCE)[1]
    finally:
        started.kill()
    assert started.returncode == 1 and "is not the secret one's" in said, said

    # What others reach has a key, or says that it has none.
    def frontend(server_section, listen):
        with open(folder + "/open.yaml", "w") as file:
            file.write(f"server: {{name: x, run_dir: {folder}/run-x{server_section}}}\nfrontend: {{listen: ['{listen}'], advertise: 'tcp://127.0.0.1:1'}}\n")
        return subprocess.run([f"{BIN}/expertd", "check", folder + "/open.yaml"], capture_output=True, text=True)

    refused = frontend("", "tcp://0.0.0.0:1")
    assert refused.returncode == 2 and "server.key_file" in refused.stderr and "insecure" in refused.stderr, refused
    assert frontend(", insecure: true", "tcp://0.0.0.0:1").returncode == 0
    assert frontend(f", key_file: {folder}/server", "tcp://0.0.0.0:1").returncode == 0
    assert frontend("", "tcp://127.0.0.1:1").returncode == 0
    assert frontend(f", clients: {clients}", "tcp://127.0.0.1:1").returncode == 2
print("a server with keys lets in whom it knows")
