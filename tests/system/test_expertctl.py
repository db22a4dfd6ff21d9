#!/usr/bin/env python3
"""expertctl and the minimal Python client against a whole server: frontend, runtime and dht."""
# timeout: 150
import json, os, shutil, signal, socket, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
try:
    import numpy
    import zmq  # noqa: F401 (the minimal client's)
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)
for program in ("expertctl", "expertd-frontend", "expertd-runtime", "expertd-dht"):
    if not os.path.exists(f"{BUILD}/bin/{program}"):
        print(f"skipped: {program} is not built")
        sys.exit(77)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support_cache import warm_cache  # noqa: E402

folder = tempfile.mkdtemp()
os.chdir(folder)
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
ENDPOINT, DHT = (f"tcp://127.0.0.1:{p.getsockname()[1]}" for p in ports)
for p in ports:
    p.close()
with open("expertd.yaml", "w") as out:
    out.write(f"""
server: {{name: ctl-{os.getpid()}, run_dir: "{folder}/run"}}
frontend: {{listen: ["{ENDPOINT}"]}}
dht: {{listen: "{DHT}", port: 0, network_id: {os.getpid()}, update_period: 1}}
checkpoint: {{dir: "{folder}/checkpoints", interval: 0}}
devices:
  - {{name: one, cache_dir: "{warm_cache('one')}"}}
experts:
  - {{uid: "ffn.0.[0:2]", block: ffn, hidden_dim: 64, max_batch_size: 32, optimizer: sgd, learning_rate: 0.1, seed: 1}}
  - {{uid: nop.7, block: nop, hidden_dim: 4, max_batch_size: 16}}
""")


def ctl(*arguments, status=0, dht=True):
    """What it prints, as JSON if it was asked for that; it has to end with that exit status."""
    environment = {**os.environ, "EXPERTD_ENDPOINT": ENDPOINT, "EXPERTD_DHT": DHT if dht else ""}
    done = subprocess.run([f"{BUILD}/bin/expertctl", "--timeout", "500", *arguments], capture_output=True, text=True,
                          env=environment, timeout=600)
    assert done.returncode == status, f"{arguments}: {done.returncode}, not {status}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def asked_about():
    ctl("wait")
    ctl("wait", "ffn.0.0", "nop.7", "--experts", "3")
    assert ctl("ping", "--json")["experts_alive"] == 3
    assert [e["uid"] for e in ctl("list", "ffn.", "--json")["experts"]] == ["ffn.0.0", "ffn.0.1"]
    info = ctl("info", "ffn.0.1", "--json")
    assert info["forward_schema"][0]["row_shape"] == [64] and info["optimizer"] == "sgd" and info["alive"]
    assert "block: nop" in ctl("info", "nop.7")


def computed():
    rows = numpy.random.rand(5, 4).astype("<f4")
    numpy.save("rows.npy", rows)
    ctl("forward", "nop.7", "--input", "rows.npy", "--output", "same.npy")
    assert numpy.array_equal(numpy.load("same.npy"), rows)
    x = numpy.random.rand(3, 64).astype("<f4")
    numpy.save("x.npy", x)
    numpy.save("g.npy", numpy.ones((3, 64), "<f4"))
    said = ctl("forward", "ffn.0.0", "-i", "x.npy", "-o", "y.npy", "--json")
    assert said["outputs"][0]["shape"] == [3, 64] and said["outputs"][0]["not_finite"] == 0
    y = numpy.load("y.npy")
    assert abs(y.mean(axis=1)).max() < 1e-4  # of a LayerNorm with its first weights
    ctl("backward", "ffn.0.0", "-i", "x.npy", "-g", "x.npy", "-o", "grad.npy")
    assert numpy.load("grad.npy").shape == (3, 64)
    info = ctl("info", "ffn.0.0", "--json")
    assert info["update_count"] == 1 and info["examples_processed"] == 3
    ctl("forward", "ffn.0.0", "-i", "x.npy", "-o", "later.npy")
    assert not numpy.array_equal(numpy.load("later.npy"), y)


def refused():
    """Each with its exit code, and the server goes on."""
    numpy.save("wide.npy", numpy.zeros((2, 65), "<f4"))
    numpy.save("double.npy", numpy.zeros((2, 64), "<f8"))
    numpy.save("none.npy", numpy.zeros((0, 64), "<f4"))
    numpy.save("many.npy", numpy.zeros((33, 64), "<f4"))
    numpy.save("nan.npy", numpy.full((3, 64), numpy.nan, "<f4"))
    for name in ("wide", "double", "none", "many"):
        said = ctl("forward", "ffn.0.0", "-i", f"{name}.npy", "--json", status=5)
        assert said["status"] == "INVALID_ARGUMENT" and said["message"], said
    assert "32" in ctl("forward", "ffn.0.0", "-i", "many.npy", "--json", status=5)["message"]
    ctl("forward", "ffn.0.0", status=5)
    ctl("forward", "ffn.0.9", "-i", "x.npy", status=4)
    ctl("info", "ffn.0.9", status=4)
    ctl("backward", "ffn.0.1", "-i", "x.npy", "-g", "nan.npy", status=8)
    assert ctl("info", "ffn.0.1", "--json")["skipped_steps"] == 1
    ctl("wait", "--experts", "4", "--timeout", "0.2", status=6)
    ctl("ping")


def found():
    """By the DHT, once it has heard of the experts."""
    for _ in range(200):
        if ctl("search", "ffn.0.", "--json")["prefixes"][0]["experts"] == [[0, 2]]:
            break
    found_at, = ctl("resolve", "ffn.0.1", "--json")["experts"]
    assert (found_at["uid"], found_at["endpoints"]) == ("ffn.0.1", [ENDPOINT]), found_at
    assert ctl("resolve", "ffn.0.1", "ffn.9.9", status=4) == f"ffn.0.1\t{ENDPOINT}\nffn.9.9\t-\n"
    assert ctl("search", "ffn.") == "ffn.0.\n"
    drawn = ctl("draw", "ffn.0.[0:4]", "--count", "4").split()
    assert sorted(drawn) == ["ffn.0.2", "ffn.0.3"]
    said = subprocess.run([f"{BUILD}/bin/expertctl", "--dht", DHT, "draw", "ffn.0.[0:4]", "--count", "4"],
                          capture_output=True, text=True, timeout=600)
    assert "2 of 4 uids" in said.stderr, said  # a script that asked for four has to be told
    ctl("draw", "ffn.0.[4:0]", status=5)
    counters = ctl("stats", "--json")
    assert counters["counters"]["frontend.requests.forward"] >= 3 and counters["dht"]["dht.experts_alive"] == 3
    assert "dht." not in ctl("stats", dht=False)


def saved():
    ctl("checkpoint", "ffn.0.0")
    assert os.listdir("checkpoints/ffn.0.0")
    ctl("checkpoint")
    assert os.listdir("checkpoints/ffn.0.1")
    ctl("checkpoint", "ffn.9.9", status=4)


def asked_from_python():
    subprocess.run(["protoc", "--python_out=.", "-I" + ROOT + "/proto", "expertd.proto"], check=True)
    client = subprocess.run([sys.executable, f"{ROOT}/client/python/minimal_client.py", ENDPOINT, "ffn.0.1"],
                            env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, timeout=600)
    assert "outputs [('float32', (2, 64))] gradients [(2, 64)]" in client.stdout, client.stdout + client.stderr


log = open("server.log", "w+")
server = subprocess.Popen([f"{ROOT}/scripts/start", "--config", "expertd.yaml", "--bin", f"{BUILD}/bin"], stderr=log)
try:
    for test in (asked_about, computed, refused, found, saved, asked_from_python):
        test()
        print(f"ok {test.__name__}", flush=True)
    failed = 0
except AssertionError as problem:
    failed = 1
    log.seek(0)
    print(f"FAILED {test.__name__}: {problem!r}\n{log.read()[-4000:]}")
finally:
    server.send_signal(signal.SIGTERM)
    server.wait(600)
    shutil.rmtree(folder)
ctl_after = subprocess.run([f"{BUILD}/bin/expertctl", "-e", ENDPOINT, "-t", "0.3", "ping"], capture_output=True)
sys.exit(failed or ctl_after.returncode != 3)
