#!/usr/bin/env python3
"""expertctl and the minimal Python client against a whole server: frontend, runtime and dht."""
# timeout: 150
import fcntl, json, os, pty, select, shutil, signal, socket, struct, subprocess, sys, tempfile, termios

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
    said = ctl("backward", "ffn.0.1", "-i", "x.npy", "-g", "x.npy", "--no-grad", "0", "--json")
    assert said["outputs"] == [] and ctl("info", "ffn.0.1", "--json")["update_count"] == 1
    ctl("backward", "ffn.0.1", "-i", "x.npy", "-g", "x.npy", "--no-grad", "1", status=2)
    ctl("backward", "ffn.0.1", "-i", "x.npy", "-g", "x.npy", "--no-grad", "0", "-o", "grad.npy", status=2)
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


def watched():
    """Each line is a whole object; without --count it goes on until a signal."""
    watching = subprocess.Popen([f"{BUILD}/bin/expertctl", "-e", ENDPOINT, "-t", "500", "stats", "--watch", "--interval", "0.05", "--json"],
                                stdout=subprocess.PIPE, text=True)
    seen = [json.loads(watching.stdout.readline()) for _ in range(3)]
    assert seen[2]["time"] > seen[0]["time"] and any(h["name"].endswith("queue_seconds") for h in seen[0]["histograms"])
    uptime = [s["counters"]["frontend.uptime_s"] for s in seen]
    assert uptime[2] > uptime[1] > uptime[0]
    watching.send_signal(signal.SIGINT)
    assert watching.wait(600) == 0
    assert "frontend.uptime_s" in ctl("stats", "--watch", "--count", "2", "--interval", "0.01")


def measured():
    """What the device says of itself is of this expert alone, as it serves nobody else."""
    said = ctl("bench", "ffn.0.0", "--concurrency", "1,4", "--window", "0.1", "--windows", "3", "--json")
    assert [level["concurrency"] for level in said["levels"]] == [1, 4] and said["device"] == "one"
    for level in said["levels"]:
        assert level["calls_per_second"] > 0 and level["failed"] == 0 and level["windows"] == 3, level
        assert 0 < level["p50_ms"] <= level["p90_ms"] <= level["p99_ms"] <= level["max_ms"], level
        assert level["compute_ms"] > 0 and level["batch_rows"] >= 1, level
    assert ctl("bench", "ffn.0.9", "--json", status=4)["status"] == "NOT_FOUND"
    updates = ctl("info", "ffn.0.0", "--json")["update_count"]
    ctl("bench", "ffn.0.0", "--backward", "--concurrency", "2", "--window", "0.05", "--windows", "1", "--csv")
    assert ctl("info", "ffn.0.0", "--json")["update_count"] > updates  # a benchmark of forwards has trained nothing


class Terminal:
    """expertctl in a terminal of 40 lines; what it has written comes as it is."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        self.process = subprocess.Popen([f"{BUILD}/bin/expertctl", "-e", ENDPOINT, *arguments], stdin=slave, stdout=slave, stderr=slave,
                                        env={**os.environ, "TERM": "vt100"}, start_new_session=True)
        os.close(slave)
        self.written = ""

    def read(self):
        """Some more of it; "" at the end."""
        assert select.select([self.master], [], [], 600)[0], f"nothing more came after {self.written[-2000:]!r}"
        try:
            more = os.read(self.master, 65536).decode()
        except OSError:  # EIO: the other side has gone
            more = ""
        self.written += more
        return more

    def until(self, *texts):
        while not all(text in self.written for text in texts):
            assert self.read(), f"it ended before {texts}: {self.written!r}"

    def press(self, keys):
        """And ^L, by which the screen is written whole: ncurses leaves out what stands there already."""
        self.written = ""
        os.write(self.master, keys.encode() + b"\x0c")

    def end(self):
        while self.read():
            pass
        os.close(self.master)
        return self.process.wait(600)


def shown():
    """`top`: it shows devices and experts, refreshes by itself, and does what keys say."""
    terminal = Terminal("top", "--interval", "0.1")
    terminal.until("3 of 3 experts alive", "DEVICE", "one", "UID", "ffn.0.0", "ffn.0.1", "nop.7", "1-3 of 3, by ROWS/s")
    terminal.read()  # by itself: the time that goes by
    terminal.press("/nop")
    terminal.until("filter: ")
    terminal.press("\r")
    terminal.until("1-1 of 1 with nop")
    terminal.press("/\r>>>>>>>")  # no filter, and the sixth column on from the fourth is the first
    terminal.until("of 3, by UID")
    terminal.press("r")
    terminal.until("reversed")
    terminal.press("q")
    assert terminal.end() == 0
    attributes = terminal.written
    assert "\x1b[" in attributes  # the screen was left as ncurses leaves it
    stopped = Terminal("top", "ffn.")
    stopped.until("ffn.0.1", "1-2 of 2")
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.end() == 0
    gone = Terminal("top", "ffn.")  # the terminal goes, and no signal says so
    gone.until("1-2 of 2")
    os.close(gone.master)
    gone.process.wait(600)
    unknown = subprocess.run(["script", "-qec", f"TERM=no-such {BUILD}/bin/expertctl -e {ENDPOINT} top", "/dev/null"], capture_output=True,
                             text=True, timeout=600) if shutil.which("script") else None
    assert unknown is None or (unknown.returncode == 10 and "ncurses" in unknown.stdout), unknown


def asked_from_python():
    subprocess.run(["protoc", "--python_out=.", "-I" + ROOT + "/proto", "expertd.proto"], check=True)
    client = subprocess.run([sys.executable, f"{ROOT}/client/python/minimal_client.py", ENDPOINT, "ffn.0.1"],
                            env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, timeout=600)
    assert "outputs [('float32', (2, 64))] gradients [(2, 64)]" in client.stdout, client.stdout + client.stderr


log = open("server.log", "w+")
server = subprocess.Popen([f"{ROOT}/scripts/start", "--config", "expertd.yaml", "--bin", f"{BUILD}/bin"], stderr=log)
try:
    for test in (asked_about, computed, refused, found, saved, watched, measured, shown, asked_from_python):
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
