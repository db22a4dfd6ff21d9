#!/usr/bin/env python3
"""A server with two frontends, each for one of two OpenCL devices: who asks the wrong one is told which is the right one, and
clients follow; one that is killed disturbs nobody of the other's, and comes back; each takes the changes of its own experts."""
# timeout: 1200
import json, os, subprocess, threading, urllib.error, urllib.request

os.environ["POCL_DEVICES"] = "pthread pthread"
from support_ports import free_port
from support_server import BIN, PATIENCE, Client, Server, pb, until, warm_cache, zmq


class Load(threading.Thread):
    """Forwards and backwards of one frontend's expert, and what became of them."""
    IN_FLIGHT = 4

    def __init__(self, endpoint, uid):
        super().__init__()
        self.endpoint, self.uid, self.ended, self.error, self.answered = endpoint, uid, threading.Event(), None, 0

    def run(self):
        client = Client(self.endpoint)
        try:
            waiting = set()
            while not self.ended.is_set() or waiting:
                while len(waiting) < self.IN_FLIGHT and not self.ended.is_set():
                    backward = client.last_id % 2
                    waiting.add(client.send(pb.BACKWARD if backward else pb.FORWARD, self.uid, 1, 4, 2 if backward else 1))
                reply = client.receive()
                waiting.remove(reply.request_id)
                assert reply.status == pb.OK, f"{self.uid}: {reply}"
                self.answered += 1
        except BaseException as error:  # for whoever joins
            self.error = error
        finally:
            client.close()

    def finish(self):
        self.ended.set()
        self.join()
        if self.error:
            raise self.error


def expertctl(*arguments, status=0):
    done = subprocess.run([f"{BIN}/expertctl", *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == status, f"{arguments}: {done}"
    return done.stdout if status == 0 else done.stderr


def listed(endpoint):
    client = Client(endpoint)
    entries = {e.uid: (e.alive, e.device, e.endpoint) for e in client.call(pb.LIST).list.experts}
    client.close()
    return entries


def http(path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{HTTP}{path}", body, {"Authorization": "Bearer 0123456789abcdef0123456789abcdef"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except urllib.error.URLError as error:
        return 0, str(error)


LEFT, RIGHT, DHT, node, node_tcp, HTTP = (free_port() for _ in range(6))
LEFT, RIGHT, DHT = (f"tcp://127.0.0.1:{port}" for port in (LEFT, RIGHT, DHT))
CACHE = warm_cache("a", "b")
with Server(['{uid: "l.[0:2]", block: nop, hidden_dim: 4, device: a}', '{uid: "r.[0:2]", block: nop, hidden_dim: 4, device: b}'],
            devices=f"{{name: a, cache_dir: {CACHE}}}, {{name: b, device: '1', cache_dir: {CACHE}}}") as server:
    with open(server.config) as file:
        text = file.read()
    text += f"dht: {{listen: '{DHT}', port: {node}, tcp_port: {node_tcp}, update_period: 1, expiration: 60}}\n"
    token = os.path.join(os.path.dirname(server.config), "token")
    with open(token, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write("0123456789abcdef0123456789abcdef\n")
    text += f'http: {{listen: "127.0.0.1:{HTTP}", token_file: {token}, changes: true, dht: none}}\n'
    text = text.replace(f'frontend: {{listen: ["{server.endpoint}"]}}',
                        f'frontends: [{{name: left, devices: [a], listen: ["{LEFT}"]}}, '
                        f'{{name: right, devices: [b], listen: ["{RIGHT}"]}}]')
    with open(server.config, "w") as file:
        file.write(text)
    name, server.name = server.name, server.name + "-left"  # for segments(), whose prefix has both runtimes' then
    server.segments = lambda: [f"/dev/shm/{s}" for s in os.listdir("/dev/shm") if s.startswith(f"expertd.{name}-")]
    server.start_as("left", "expertd-frontend", "--frontend", "left")
    server.start_as("right", "expertd-frontend", "--frontend", "right")
    for device in "ab":
        server.start_as(f"runtime-{device}", "expertd-runtime", "--device", device)
    expertctl("--endpoint", LEFT, "wait", "--timeout", str(PATIENCE))  # of both frontends' experts

    # Each of them lists all, and of the others' where they are.
    assert listed(LEFT) == {"l.0": (True, "a", ""), "l.1": (True, "a", ""), "r.0": (False, "b", RIGHT), "r.1": (False, "b", RIGHT)}
    assert listed(RIGHT) == {"r.0": (True, "b", ""), "r.1": (True, "b", ""), "l.0": (False, "a", LEFT), "l.1": (False, "a", LEFT)}
    page = Client(LEFT).call(pb.LIST, list=pb.ListQuery(prefix="", offset=1, limit=2)).list
    assert [e.uid for e in page.experts] == ["l.1", "r.0"] and page.total == 4, page
    assert [e["uid"] for e in json.loads(expertctl("--json", "--endpoint", RIGHT, "list"))["experts"] if e["alive"]] == \
        ["r.0", "r.1", "l.0", "l.1"]

    # The wrong one says which is the right one, and does nothing.
    left = Client(LEFT)
    for method, tensors in ((pb.FORWARD, 1), (pb.BACKWARD, 2), (pb.INFO, 0), (pb.CHECKPOINT, 0)):
        reply = left.call(method, "r.1", 1 if tensors else 0, 4, tensors)
        assert (reply.status, reply.endpoint) == (pb.NOT_FOUND, RIGHT), reply
    reply = left.call(pb.FORWARD, "x.0", 1)
    assert (reply.status, reply.endpoint) == (pb.NOT_FOUND, ""), reply
    Part = pb.RequestHeader.Part
    reply = left.call(pb.FORWARD, "", 2, parts=[Part(uid="r.0", rows=1), Part(uid="r.1", rows=1)])
    assert (reply.status, reply.endpoint) == (pb.NOT_FOUND, RIGHT), reply
    assert [(part.status, part.frontend) for part in reply.parts] == [(pb.NOT_FOUND, 1)] * 2 and list(reply.endpoints) == [RIGHT], reply
    reply = left.call(pb.FORWARD, "", 3, parts=[Part(uid="l.0", rows=1), Part(uid="r.1", rows=1), Part(uid="x.0", rows=1)])
    assert [(part.status, part.frontend) for part in reply.parts] == [(pb.OK, 0), (pb.NOT_FOUND, 1), (pb.NOT_FOUND, 0)], reply
    assert list(reply.endpoints) == [RIGHT] and RIGHT in reply.parts[1].message and not reply.endpoint, reply
    assert [(other.server, other.endpoint) for other in left.call(pb.PING).pong.frontends] == [(f"{name}-right", RIGHT)]

    # Clients follow.
    assert "uid: r.1" in expertctl("--endpoint", LEFT, "info", "r.1")
    bench = json.loads(expertctl("--json", "--endpoint", LEFT, "bench", "r.0", "--concurrency", "4", "--window", "0.1", "--windows", "1"))
    assert "r.0" in json.dumps(bench)
    assert "x.0" in expertctl("--endpoint", LEFT, "info", "x.0", status=4)

    # To who looks it is one server.
    stats = json.loads(expertctl("--json", "--endpoint", RIGHT, "stats"))
    each = {one["endpoint"]: one["counters"] for one in stats["frontends"]}
    assert each.keys() == {LEFT, RIGHT} and "device.a.steps" in each[LEFT] and "device.a.steps" not in each[RIGHT], each
    assert {"device.a.steps", "device.b.steps"} < stats["counters"].keys(), stats["counters"]
    for counter in ("frontend.requests.ping", "frontend.requests.forward"):
        assert stats["counters"][counter] == each[LEFT][counter] + each[RIGHT][counter]
    heads = [line for line in expertctl("--endpoint", LEFT, "stats").splitlines() if line.startswith("# ")]
    assert heads == [f"# {name}-left at {LEFT}", f"# {name}-right at {RIGHT}"], heads
    assert expertctl("--endpoint", LEFT, "checkpoint", status=1).count("INTERNAL") == 2  # there is no folder for them

    server.start_as("http", "expertd-http")
    until(lambda: http("/readyz?verbose")[1].splitlines() ==
          [f"[+]frontend {LEFT} ok", f"[+]frontend {RIGHT} ok", "[+]experts ok: 4 of 4 alive", "readyz check passed"], "all are ready")
    metrics = http("/metrics")[1].splitlines()
    for line in (f'expertd_frontend_up{{frontend="{name}-left"}} 1', f'expertd_frontend_up{{frontend="{name}-right"}} 1', "expertd_experts_alive 4",
                 'expertd_device_up{device="a"} 1', 'expertd_device_up{device="b"} 1'):
        assert line in metrics, (line, metrics)
    samples = [line.rsplit(" ", 1)[0] for line in metrics if not line.startswith("#")]
    assert len(samples) == len(set(samples)) and f'expertd_uptime_seconds{{frontend="{name}-right"}}' in samples, samples
    assert {model["name"]: model["state"] for model in json.loads(http("/v2/repository/index", b"")[1])} == \
        {uid: "READY" for uid in ("l.0", "l.1", "r.0", "r.1")}
    assert {model["name"] for model in json.loads(http("/v2/models/stats")[1])["model_stats"]} == {"l.0", "l.1", "r.0", "r.1"}
    status = json.loads(http("/status.json")[1])
    assert status["alive"] == 4 and [one["up"] for one in status["frontends"]] == [True, True], status
    for change in ("unload", "load"):
        assert http(f"/v2/repository/models/r.1/{change}", b"")[0] == 200  # whichever frontend has it
    server.kill("left")  # nor does it take the first one
    assert http("/v2/repository/models/r.1/unload", b"")[0] == 200
    for change in ("load", "unload"):
        assert f"1 {change}ed" in expertctl("--run-dir", server.run_dir, "--server", name, change, "r.1")
    assert http("/v2/repository/models/r.1/load", b"")[0] == 200
    server.start_as("left", "expertd-frontend", "--frontend", "left")
    expertctl("--endpoint", LEFT, "wait", "--timeout", str(PATIENCE))
    server.stop("http")

    # The directory has each expert at its own frontend's endpoint, whichever expertd-dht published it.
    for one in ("left", "right"):
        server.start_as(f"dht-{one}", "expertd-dht", "--frontend", one)

    def resolved(uid):
        done = subprocess.run([f"{BIN}/expertctl", "--json", "--dht", DHT, "resolve", uid], capture_output=True, text=True)
        return [endpoint for endpoint in (LEFT, RIGHT) if endpoint in done.stdout]

    until(lambda: resolved("l.0") == [LEFT], "l.0 is found")
    until(lambda: resolved("r.1") == [RIGHT], "r.1 is found")
    server.stop("dht-left", "dht-right")

    # One is killed under load: the other's clients do not notice, and it comes back to its runtime.
    loads = [Load(LEFT, "l.0"), Load(LEFT, "l.1")]
    for load in loads:
        load.start()
    right = Client(RIGHT)
    assert right.call(pb.FORWARD, "r.0", 1).status == pb.OK
    for _ in range(2):
        server.kill("right")
        before = [load.answered for load in loads]
        until(lambda: all(load.answered > was + 100 or load.error for load, was in zip(loads, before)), "the left one answers")
        assert "r.0\tdown" in expertctl("--timeout", "4", "--endpoint", LEFT, "list", "r.")
        # What the one that is down keeps from being shown is said, and is no failure of what is shown.
        some = json.loads(expertctl("--json", "--timeout", "4", "--endpoint", LEFT, "stats"))
        assert some["status"] == "OK" and [one["status"] == "OK" for one in some["frontends"]] == [True, False], some
        server.start_as("right", "expertd-frontend", "--frontend", "right")
        until(lambda: right.call(pb.FORWARD, "r.0", 1).status == pb.OK, "the right one is back")
    for load in loads:
        load.finish()
    assert server.running["runtime-a"].poll() is None and server.running["runtime-b"].poll() is None

    # An expert is changed by the frontend that has it, and the others know of it.
    def change(frontend, *arguments, status=0):
        return expertctl("--run-dir", server.run_dir, "--server", f"{name}-{frontend}", *arguments, status=status)

    owner = Client(f"ipc://{server.run_dir}/{name}-left.socket")
    for method, uid, settings in ((pb.UNLOAD, "r.1", []), (pb.SET, "r.1", ["learning_rate=1"]), (pb.LOAD, "z.0", ["device=b"])):
        reply = owner.call(method, uid, settings=settings)
        assert (reply.status, reply.endpoint) == (pb.NOT_FOUND, f"ipc://{server.run_dir}/{name}-right.socket"), reply
        assert f"--server {name}-right" in reply.message, reply
    owner.close()
    assert "1 unloaded" in change("left", "unload", "r.1")  # libexpertd follows
    assert "1 loaded" in change("left", "load", "z.0", "block=nop", "hidden_dim=4", "device=b")
    until(lambda: listed(LEFT).get("z.0") == (False, "b", RIGHT) and "r.1" not in listed(LEFT), "the left one knows")
    assert "uid: z.0" in expertctl("--endpoint", LEFT, "info", "z.0")
    with open(server.config, "w") as file:
        file.write(text.replace('"r.[0:2]"', '"r.[0:3]"'))
    assert f"another frontend has other experts, too: reload --server {name}-right" in change("left", "reload")
    assert "2 loaded, 1 unloaded" in change("right", "reload")  # r.1, r.2; z.0
    until(lambda: listed(LEFT).keys() == {"l.0", "l.1", "r.0", "r.1", "r.2"}, "the left one knows")
    assert "uid: r.2" in expertctl("--endpoint", LEFT, "info", "r.2")
    with open(server.config, "w") as file:
        file.write(text.replace('"r.[0:2]"', '"r.[0:4]"'))
    assert "1 loaded" in change("right", "reload")  # alone: the left one sees that the configuration is another one
    until(lambda: "r.3" in listed(LEFT), "the left one knows")

    # Who names the server and none of its frontends reaches them all, and each change comes to where it belongs.
    def everywhere(*arguments, status=0):
        return expertctl("--run-dir", server.run_dir, "--server", name, *arguments, status=status)

    with open(server.config, "w") as file:
        file.write(text.replace('"r.[0:2]"', '"r.[0:5]"').replace('"l.[0:2]"', '"l.[0:3]"'))
    assert everywhere("reload") == "2 loaded, 0 unloaded, 0 replaced, 0 set\n"  # l.2 and r.4, and nobody is to be told more
    until(lambda: listed(LEFT).keys() == listed(RIGHT).keys() == {f"l.{i}" for i in range(3)} | {f"r.{i}" for i in range(5)}, "both know")
    for uid in ("l.2", "r.4"):
        assert "1 unloaded" in everywhere("unload", uid)
        until(lambda: uid not in listed(LEFT) and uid not in listed(RIGHT), "it is gone")
        assert "1 loaded" in everywhere("load", uid)  # as the configuration has it, where that has it
        until(lambda: uid in listed(LEFT) and uid in listed(RIGHT), "it is back")
    assert "x.7" in everywhere("unload", "x.7", status=4)

    # A second one of the same name is refused, and one without a name.
    for arguments, text in ((["--frontend", "left"], "has a running frontend already"), ([], "--frontend says which this one is (left, right)"),
                            (["--frontend", "middle"], "it has left, right")):
        done = subprocess.run([f"{BIN}/expertd-frontend", "--config", server.config, *arguments], capture_output=True, text=True,
                              timeout=PATIENCE)
        assert done.returncode and text in done.stderr, done
    for client in (left, right):
        client.close()
    server.stop("left", "right", "runtime-a", "runtime-b")
