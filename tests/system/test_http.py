#!/usr/bin/env python3
# timeout: 600
"""expertd-http over a real server: metrics that a Prometheus would take, probes that agree with what calls get, the Open
Inference Protocol, a token."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

BUILD = os.path.abspath(os.environ.get("BUILD", "build"))
LONG = 240  # seconds: what only a hang reaches
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support_cache import warm_cache  # noqa: E402
from support_ports import free_port  # noqa: E402
import support_browser  # noqa: E402
import support_page  # noqa: E402

work = tempfile.mkdtemp()
processes = []


ROUTER, HTTP, DHT = free_port(), free_port(), free_port()


def configure(name, http, experts="top 2"):
    path = f"{work}/{name}.yaml"
    with open(path, "w") as file:
        file.write(
            f"server: {{name: http-{os.getpid()}, run_dir: {work}/run}}\n"
            f'frontend: {{listen: ["tcp://127.0.0.1:{ROUTER}"]}}\n'
            f'dht: {{listen: "tcp://127.0.0.1:{DHT}", port: 0}}\n'
            f"http: {http}\n"
            f"metrics: {{experts: {experts}}}\n"
            f"devices: [{{name: device0, cache_dir: {warm_cache()}}}]\n"
            "experts: [{uid: 'nop.[0:3]', block: nop, hidden_dim: 8, max_batch_size: 16}]\n"
        )
    return path


def start(program, config):
    log = open(f"{work}/{program}.log", "a")
    process = subprocess.Popen([f"{BUILD}/bin/{program}", "--config", config], stdout=log, stderr=log)
    processes.append(process)
    return process


def get(path, token=None, method="GET", data=None):
    request = urllib.request.Request(f"http://127.0.0.1:{HTTP}{path}", method=method, data=data)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=LONG) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(what, condition):
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        try:
            if result := condition():
                return result
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.05)  # between looks at another process; the bound is above
    raise AssertionError(f"waited in vain: {what}")


def state_when(what, condition):
    """The first status of which that is true: one whose answers came late lacks what they would have told."""
    def state():
        state = json.loads(get("/status.json")[1])
        return state if condition(state) else None
    return wait_for(what, state)


def metrics_when(what, condition):
    """As state_when, of the metrics."""
    def metrics():
        found = samples(get("/metrics")[1])
        return found if condition(found) else None
    return wait_for(what, metrics)


def ctl(*arguments):
    return subprocess.run(
        [f"{BUILD}/bin/expertctl", "-e", f"tcp://127.0.0.1:{ROUTER}", "-t", str(LONG), *arguments],
        check=True, capture_output=True, text=True,
    ).stdout


def infer(uid, header, tensors=b"", json_bytes=None):
    body = json.dumps(header).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{HTTP}/v2/models/{uid}/infer", method="POST", data=body + tensors)
    if tensors:
        request.add_header("Inference-Header-Content-Length", str(json_bytes or len(body)))
    try:
        with urllib.request.urlopen(request, timeout=LONG) as reply:
            return reply.status, reply.read(), reply.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def test_inference():
    """The Open Inference Protocol: what is there, numbers and bytes both ways, errors that say why."""
    import numpy

    assert json.loads(get("/v2")[1])["extensions"] == ["binary_tensor_data", "model_repository", "statistics"]
    assert json.loads(get("/v2/health/ready")[1]) == {"ready": True}
    model = json.loads(get("/v2/models/nop.1")[1])
    assert model["name"] == "nop.1" and model["versions"] == ["1"]
    (given,), (returned,) = model["inputs"], model["outputs"]
    assert given["datatype"] == "FP32" and given["shape"] == [-1, 8]
    assert get("/v2/models/nop.1/versions/1/ready")[0] == 200
    assert [m["name"] for m in json.loads(get("/v2/repository/index", method="POST", data=b"")[1])] == ["nop.0", "nop.1", "nop.2"]
    assert get("/v2/repository/models/nop.1/unload", method="POST", data=b"")[0] == 403, "only where that is set"
    before = json.loads(get("/v2/models/nop.2/stats")[1])["model_stats"][0]["inference_count"]

    x = numpy.random.default_rng(1).standard_normal((3, 8)).astype("f4")
    numbers = {"name": given["name"], "shape": [3, 8], "datatype": "FP32", "data": [float(v) for v in x.flat]}
    status, body, headers = infer("nop.2", {"id": "q", "inputs": [numbers]})
    reply = json.loads(body)
    assert status == 200 and reply["id"] == "q" and reply["model_name"] == "nop.2"
    assert reply["outputs"][0]["shape"] == [3, 8] and headers["Inference-Header-Content-Length"] is None
    assert (numpy.array(reply["outputs"][0]["data"], "f4").reshape(3, 8) == x).all(), "numbers come back bit for bit"

    raw = {"name": given["name"], "shape": [3, 8], "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    status, body, headers = infer("nop.2", {"inputs": [raw], "parameters": {"binary_data_output": True}}, x.tobytes())
    split = int(headers["Inference-Header-Content-Length"])
    assert json.loads(body[:split])["outputs"][0]["parameters"] == {"binary_data_size": x.nbytes}
    assert body[split:] == x.tobytes()
    assert json.loads(get("/v2/models/nop.2/stats")[1])["model_stats"][0]["inference_count"] == before + 6

    for uid, header, wanted, words in (
        ("nop.9", {"inputs": [numbers]}, 404, "nop.9"),
        ("nop.2", {"inputs": [dict(numbers, shape=[3, 7])]}, 400, "numbers of FP32"),
        ("nop.2", {"inputs": [dict(numbers, shape=[4, 6])]}, 400, "got float32[4,6]"),
        ("nop.2", {"inputs": [dict(numbers, name="other")]}, 400, "did not come"),
        ("nop.2", {"inputs": [numbers], "outputs": [{"name": "other"}]}, 400, "no output 'other'"),
        ("nop.2", {"inputs": [dict(numbers, shape=[20, 8], data=[0.0] * 160)]}, 400, "16"),
    ):
        status, body, _ = infer(uid, header)
        assert status == wanted and words in json.loads(body)["error"], (status, body)
    assert infer("nop.2", {"inputs": [raw]}, x.tobytes(), json_bytes=10**9)[0] == 400
    test_what_perf_analyzer_asks(given, raw, x)
    assert get("/v2/models/nop.2/infer")[0] == 405 and get("/v2/models/nop.2/nothing")[0] == 404
    # What never comes as far as a model is said as the protocol has errors, too.
    for path, method, data, wanted, words in (
        ("/v2/models/nop.2/infer", "POST", json.dumps({"inputs": [numbers], "id": "x" * 70000}).encode(), 413, "http.max_body"),
        ("/v2/models/nop.2/infer", "POST", b"{", 400, "ends too early"),
        ("/v2/models/nop.2/infer", "DELETE", None, 405, "GET or POST"),
        ("/v2", "POST", b"{}", 405, "GET"),
    ):
        status, body = get(path, method=method, data=data)
        assert status == wanted and words in json.loads(body)["error"], (path, status, body)
    assert get("/metrics", method="DELETE") == (405, "GET or POST, please\n")

    try:
        import tritonclient.http as triton
    except ImportError:
        return
    client = triton.InferenceServerClient(f"127.0.0.1:{HTTP}")
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("nop.1")
    for binary in (False, True):
        tensor = triton.InferInput(given["name"], x.shape, "FP32")
        tensor.set_data_from_numpy(x, binary_data=binary)
        wanted = triton.InferRequestedOutput(returned["name"], binary_data=binary)
        assert (client.infer("nop.1", [tensor], outputs=[wanted]).as_numpy(returned["name"]) == x).all()
    client.close()


def test_what_perf_analyzer_asks(given, raw, x):
    """The metadata, the configuration, the statistics before and after a window of requests in binary form."""
    model = json.loads(get("/v2/models/nop.0")[1])
    config = json.loads(get("/v2/models/nop.0/config")[1])
    assert get("/v2/models/nop.0/versions/1/config")[1] == get("/v2/models/nop.0/config")[1]
    assert config["name"] == "nop.0" and config["max_batch_size"] == 16 and config["backend"] == "expertd", config
    assert config["model_transaction_policy"] == {"decoupled": False} and "sequence_batching" not in config
    for side in ("input", "output"):  # a batch's dimension is in the metadata, and not in the configuration
        assert [(t["name"], "TYPE_" + t["datatype"], t["shape"]) for t in model[side + "s"]] == [
            (t["name"], t["data_type"], [-1] + t["dims"]) for t in config[side]]
    assert config["input"][0]["dims"] == [8] and get("/v2/models/nop.9/config")[0] == 404

    def statistics():
        (one,) = json.loads(get("/v2/models/nop.0/stats")[1])["model_stats"]
        return one

    def window(key, field):
        return after["inference_stats"][key][field] - before["inference_stats"][key][field]

    before = statistics()
    begun = time.monotonic_ns()
    for _ in range(4):
        assert infer("nop.0", {"inputs": [raw], "parameters": {"binary_data_output": True}}, x.tobytes())[0] == 200
    passed, after = time.monotonic_ns() - begun, statistics()
    assert after["inference_count"] - before["inference_count"] == 12
    assert after["execution_count"] - before["execution_count"] == 4
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert [window(part, "count") for part in ("success", *parts)] == [4] * 5, after
    assert 0 < window("queue", "ns") + window("compute_infer", "ns") <= window("success", "ns") <= passed, (before, after)
    assert window("compute_infer", "ns") > 0
    everything = json.loads(get("/v2/models/stats")[1])["model_stats"]
    assert [m for m in everything if m["name"] == "nop.0"] == [after]


def test_browser():
    """The page in a browser, while the server works."""
    load = subprocess.Popen([f"{BUILD}/bin/expertctl", "-e", f"tcp://127.0.0.1:{ROUTER}", "-t", str(LONG), "bench", "nop.1", "--concurrency", "4",
                             "--window", "600", "--rows", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    processes.append(load)
    page = support_browser.Browser(f"http://127.0.0.1:{HTTP}/", f"{work}/browser", LONG)
    try:
        page.until("$('state').textContent === 'all 3 experts alive'", "the state")
        page.until("$('dht').textContent.includes('experts published as alive3 of 3')", "the directory")
        page.until("/[^0]/.test($('rate').querySelector('polyline').getAttribute('points'))", "the past is drawn")
        page.until("Object.fromEntries([...document.querySelectorAll('#experts tbody tr')].map(r => [r.cells[0].textContent, "
                   "r.cells[2].textContent]))['nop.1'].match(/[kM]$/)", "rows of the expert under load")
        assert page.run("[...document.querySelectorAll('#devices h3')].map(h => h.textContent)")[0] == "device0"
        wanted = [["expertd-http", "–"], ["expertd-frontend", "–"], ["expertd-runtime", "device0"], ["expertd-dht", "–"]]
        page.until("(rows => rows.every(r => / %$/.test(r.cells[4].textContent)) && JSON.stringify(rows.map(r => [r.cells[0].textContent, "
                   f"r.cells[1].textContent])) === {json.dumps(json.dumps(wanted, separators=(',', ':'), ensure_ascii=False))})"
                   "([...$('processes').tBodies[0].rows])", "processes, and what each takes of a CPU")
        assert page.run("document.querySelectorAll('#latency svg rect').length") > 10
        # Who stands on a button keeps it over the polls, and what is read aloud is not said again.
        page.run("""
            var button = document.querySelectorAll('#experts th button')[0], spoken = 0, polls = 0;
            for (const part of [$('state'), $('shown')]) {
                let was = part.textContent;
                new MutationObserver(() => { spoken += part.textContent === was; was = part.textContent; })
                    .observe(part, {childList: true, characterData: true, subtree: true});
            }
            new MutationObserver(() => polls++).observe($('server'), {childList: true});
            button.focus(); button.click();""")
        page.until("polls >= 3", "the page asks again")
        assert page.run("document.activeElement === button && button.isConnected"), "the focus is where it was"
        assert page.run("button.parentNode.getAttribute('aria-sort')") == "ascending"
        assert page.run("spoken") == 0, "the same is read aloud again"
        uids = "[...document.querySelectorAll('#experts tbody tr')].map(r => r.cells[0].textContent)"
        assert page.run(uids) == ["nop.0", "nop.1", "nop.2"]
        page.run("button.click()")
        assert page.run(uids) == ["nop.2", "nop.1", "nop.0"]
        page.run("$('filter').value = '.1'; $('filter').dispatchEvent(new Event('input'))")
        assert page.run(uids) == ["nop.1"] and page.run("$('shown').textContent") == "1 of 1 shown, 3 in all"
        page.run("$('filter').value = ''; $('filter').dispatchEvent(new Event('input'))")
        support_page.test_roles(page)
        support_page.test_colours(page)
        support_page.test_keyboard(page)
        support_page.test_phone(page)
        # A tab that nobody sees leaves the server alone, and goes on when it is seen.
        page.run("var hides = true; Object.defineProperty(document, 'hidden', {get: () => hides, configurable: true})")
        page.until("unseen", "it looks whether it is seen")
        page.run("var then = last.time, asked = 0; const really = window.fetch; window.fetch = (...a) => { asked++; return really(...a); }")
        page.until("performance.now() > (window.begun ??= performance.now()) + 2.5 * PERIOD", "time enough to do wrong")
        assert page.run("asked") == 0 and page.run("last.time === then")
        page.run("hides = false")
        page.until("last.time > then && asked >= 2", "the past and the present are asked for")
        # As many as a server may have: each is there, in order, and soon.
        page.run("""
            $('filter').value = '';
            const one = last.experts[0];
            show = () => {}; // an answer would take its place
            last = {...last, experts: Array.from({length: 4096}, (_, i) => ({...one, uid: `ffn.${i >> 6}.${i & 63}`, forward_rows: i}))};
            sort = {key: 'uid', down: false};
            experts();""")
        assert page.run(uids)[62:66] == ["ffn.0.62", "ffn.0.63", "ffn.1.0", "ffn.1.1"]
        assert page.run("$('shown').textContent") == "400 of 4096 shown, 4096 in all"
        page.run("$('filter').value = 'ffn.63.6'; experts()")
        assert page.run(uids) == ["ffn.63.6"] + [f"ffn.63.{i}" for i in range(60, 64)]
        assert not page.complaints, page.complaints
        if kept := os.environ.get("EXPERTD_SCREENSHOT"):  # for docs/page.png
            page.screenshot(kept)
    finally:
        page.close()
        load.kill()
        load.wait()


def test_page(http):
    """The page is whole, and what it asks for is what it shows; in a browser where there is one."""
    status, page = get("/")
    assert status == 200 and page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>")
    assert not re.search(r"""(src|href)\s*=|https?://(?!www\.w3\.org/2000/svg)|@import|url\(""", page), "loads nothing from elsewhere"
    state = state_when("all are alive", lambda state: state.get("experts_total") == state.get("alive") == 3)
    # The server's last minutes, also those before the page was opened; and the directory, which begins and ends here.
    def history():
        past = json.loads(get("/history.json")[1])
        return past if len(past["samples"]) >= 2 and past["samples"][-1][1] >= 5 else None
    past = wait_for("the past is kept", history)
    times, asked, in_flight, refused = zip(*past["samples"])
    assert past["period"] == 2 and list(times) == sorted(times) and abs(times[-1] - state["time"]) < 600, past
    assert list(asked) == sorted(asked) and list(refused) == sorted(refused), past
    assert state["dht"] is None and samples(get("/metrics")[1])["expertd_dht_up"] == 0
    dht = start("expertd-dht", f"{work}/open.yaml")
    told = state_when("the directory tells", lambda state: (state["dht"] or {}).get("dht.experts_alive") == 3)["dht"]
    metrics_when("its metrics", lambda found: found.get("expertd_dht_experts_published") == 3 and
                 found.get('process_open_fds{program="expertd-dht"}', 0) > 3)
    for counter in set(re.findall(r'\bv\("([a-z_]+)"\)', page)):
        assert f"dht.{counter}" in told, counter
    assert [e["uid"] for e in state["experts"]] and state["counters"]["device.device0.alive"] == 1
    for expert in state["experts"]:
        for field in set(re.findall(r"\be\.([a-z_]+)\b", page)) - {"includes", "append", "message"}:
            assert field in expert or field in ("textContent", "className"), f"the page reads {field}, which is not told"
    for field in set(re.findall(r"\bp\.([a-z_]+)\b", page)) - {"load"}:
        assert all(field in process for process in state["processes"]), f"the page reads {field}, which is not told"
    assert len({process["pid"] for process in state["processes"]}) == 3 and state["processes"][0]["pid"] == http.pid, state["processes"]
    if support_browser.PATH:
        test_browser()
    else:
        print("left out: the page in a browser (scripts/install-packages --browser)")
    dht.send_signal(signal.SIGTERM)
    assert dht.wait(LONG) == 0
    state_when("the directory is gone", lambda state: state["dht"] is None)


def samples(text):
    """Every line is one of a metric whose HELP and TYPE came before it, and no name comes twice."""
    result, types, name = {}, {}, None
    for line in text.splitlines():
        if match := re.fullmatch(r"# HELP ((?:expertd|process)_[a-z0-9_]+) \S.*", line):
            assert match[1] not in types, f"{match[1]} comes twice"
            name = match[1]
        elif match := re.fullmatch(r"# TYPE (\S+) (counter|gauge|histogram)", line):
            assert match[1] == name, line
            types[name] = match[2]
            assert (match[2] == "counter") == name.endswith("_total"), line
        else:
            match = re.fullmatch(r'([a-z0-9_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*\})? (-?[0-9.e+-]+)', line)
            assert match, f"no sample: {line}"
            assert re.sub("_(bucket|sum|count)$", "", match[1]) == name or match[1] == name, line
            result[match[1] + (match[2] or "")] = float(match[3])
    return result


def test():
    config = configure("open", f'{{listen: "127.0.0.1:{HTTP}", max_body: 65536}}')
    http = start("expertd-http", config)
    wait_for("the gateway listens", lambda: get("/livez")[0] == 200)
    # Nothing behind it: it lives, is not ready, and says so at once.
    status, text = get("/readyz")
    assert status == 503 and text.startswith("[-]frontend failed"), text
    status, text = get("/metrics")
    assert status == 200 and samples(text)["expertd_up"] == 0

    frontend, runtime = start("expertd-frontend", config), start("expertd-runtime", config)
    ctl("wait")
    wait_for("ready", lambda: get("/readyz")[0] == 200)
    assert get("/readyz?verbose")[1].splitlines() == ["[+]frontend ok", "[+]experts ok: 3 of 3 alive", "readyz check passed"]

    import numpy

    numpy.save(f"{work}/x.npy", numpy.ones((4, 8), "f4"))
    for _ in range(5):
        ctl("forward", "nop.1", "--input", f"{work}/x.npy")
    found = metrics_when("all are alive", lambda found: found["expertd_up"] == 1 and found.get("expertd_experts_alive") == 3)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../http/grafana.json")) as file:
        board = json.load(file)
    names = {key.split("{")[0] for key in found}
    told = set(re.findall("# TYPE (\\S+)", get("/metrics")[1]))
    for target in (target for panel in board["panels"] for target in panel["targets"]):
        for name in re.findall("expertd_[a-z_]+", target["expr"]):
            if name == "expertd_checkpoint_age_seconds":
                continue  # this server keeps none
            assert name in names | told, f"the Grafana board shows {name}, which is not there"
    assert found['expertd_requests_total{method="forward"}'] == 5
    assert found['expertd_replies_total{method="forward",status="OK"}'] == 5
    assert found['expertd_replies_total{method="backward",status="RESOURCE_EXHAUSTED"}'] == 0
    for who in ('program="expertd-http"', 'program="expertd-frontend"', 'program="expertd-runtime",device="device0"'):
        assert found[f"process_resident_memory_bytes{{{who}}}"] > 1e6 and found[f"process_open_fds{{{who}}}"] > 3, who
        assert found[f"process_cpu_seconds_total{{{who}}}"] >= 0  # one that has done little has taken no tick
        assert abs(found[f"process_start_time_seconds{{{who}}}"] - time.time()) < 3600, who
    assert found['expertd_rows_total{device="device0"}'] == 20
    assert found['expertd_request_duration_seconds_count{method="forward"}'] == 5
    assert found['expertd_queue_duration_seconds_count{device="device0",method="forward"}'] == 5
    assert found['expertd_batch_rows_sum{device="device0",method="forward"}'] == 20
    assert found['expertd_expert_rows_total{uid="nop.1",device="device0",method="forward"}'] == 20
    assert sum("expertd_expert_pending_requests" in name for name in found) == 2, "no more experts than configured"
    assert found['expertd_device_oldest_request_seconds{device="device0"}'] == 0
    assert found["expertd_shm_used_bytes"] > 0
    closed = sum(v for k, v in found.items() if k.startswith("expertd_batches_closed_total"))
    assert closed == found['expertd_batches_total{device="device0"}'] == 5
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "metrics"], input=get("/metrics")[1], text=True, check=True)
    else:
        print("left out: promtool (scripts/install-packages --browser)")

    test_inference()
    test_page(http)

    # What is not there, or not asked for in the right way.
    assert get("/nothing")[0] == 404
    assert get("/metrics", method="POST", data=b"x" * 100000)[0] == 405
    with socket.create_connection(("127.0.0.1", HTTP)) as garbage:
        garbage.sendall(b"\0\1\2 garbage\r\n\r\n")
        garbage.settimeout(LONG)
        assert garbage.recv(4096)[:12] in (b"", b"HTTP/1.1 400")  # refused, or just closed
    with socket.create_connection(("127.0.0.1", HTTP)) as half:  # says nothing; the others are answered all the same
        half.sendall(b"GET /metr")
        assert get("/livez")[0] == 200

    # A dead runtime: alive, but not ready.
    runtime.kill()
    runtime.wait()
    wait_for("not ready without the runtime", lambda: get("/readyz")[0] == 503)
    assert get("/livez")[0] == 200
    metrics_when("the device is down", lambda found: found.get('expertd_device_up{device="device0"}') == 0)
    runtime = start("expertd-runtime", config)
    wait_for("ready again", lambda: get("/readyz")[0] == 200)
    metrics_when("the restart is counted", lambda found: found.get('expertd_device_restarts_total{device="device0"}') == 1)

    http.send_signal(signal.SIGTERM)
    assert http.wait(LONG) == 0

    # With a token.
    with open(f"{work}/token", "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write("a-secret-of-some-length\n")
    http = start("expertd-http", configure("token", f'{{listen: "127.0.0.1:{HTTP}", token_file: token, changes: true}}'))
    wait_for("the gateway listens", lambda: get("/livez")[0] == 200)
    assert get("/metrics")[0] == 401
    assert get("/metrics", token="a-secret-of-some-lengtH")[0] == 401
    assert get("/metrics", token="a-secret-of-some-length")[0] == 200
    assert get("/readyz")[0] == 200, "probes need no token"
    status, body = get("/v2/models/nop.0")
    assert status == 401 and "Bearer TOKEN" in json.loads(body)["error"], body

    # Models are loaded and unloaded, by whom the token is known to.
    def change(path, body=b"", token="a-secret-of-some-length"):
        return get(f"/v2/repository/models/{path}", token=token, method="POST", data=body)

    def index():
        return [m["name"] for m in json.loads(
            get("/v2/repository/index", token="a-secret-of-some-length", method="POST", data=b"")[1])]

    config = json.dumps({"parameters": {"config": json.dumps({"block": "nop", "hidden_dim": 4}), "max_batch_size": 8}})
    assert change("new.0/load", config.encode(), token=None)[0] == 401
    assert change("new.0/load", config.encode())[0] == 200
    assert "new.0" in index()
    status, metadata = get("/v2/models/new.0", token="a-secret-of-some-length")
    assert status == 200 and json.loads(metadata)["inputs"][0]["shape"] == [-1, 4], metadata
    assert change("nop.1/unload")[0] == 200 and "nop.1" not in index()
    assert change("nop.1/load")[0] == 200 and "nop.1" in index()
    assert change("nop.1/load")[0] == 409
    assert change("other.0/unload")[0] == 404
    assert change("other.0/load", b"[")[0] == 400
    assert change("other.0/load", b'{"parameters": {"block": "nop", "hidden_dim": 4}} and more')[0] == 400
    assert change("other.0/load", b'{"parameters": {"config": "["}}')[0] == 400
    assert change("other.0/load", b'{"parameters": {"block": {}}}')[0] == 400
    assert "hidden_dim" in change("other.0/load", b'{"parameters": {"hiden_dim": 4}}')[1]
    assert get("/v2/repository/models/nop.1/load", token="a-secret-of-some-length")[0] == 405
    def experts_told(words):
        """Over how many experts metrics tell, with those words in metrics.experts."""
        nonlocal http
        http.send_signal(signal.SIGTERM)
        assert http.wait(LONG) == 0
        http = start("expertd-http", configure("words", f'{{listen: "127.0.0.1:{HTTP}"}}', words))
        wait_for("the gateway listens", lambda: get("/livez")[0] == 200)
        found = metrics_when("the frontend tells", lambda found: "expertd_uptime_seconds" in found)
        return sum("expertd_expert_pending_requests" in name for name in found)

    assert (experts_told("none"), experts_told("all"), experts_told("top 1")) == (0, 4, 1)
    os.chmod(f"{work}/token", 0o644)
    assert start("expertd-http", f"{work}/token.yaml").wait(LONG) == 1
    assert "can be read by others" in open(f"{work}/expertd-http.log").read()

    # Changes without a token would be everybody's.
    assert start("expertd-http", configure("bold", f'{{listen: "127.0.0.1:{HTTP}", changes: true}}')).wait(LONG) == 2
    assert "needs token_file" in open(f"{work}/expertd-http.log").read()

    # A taken port and a wrong address are told.
    assert start("expertd-http", f"{work}/open.yaml").wait(LONG) == 1
    assert "Address already in use" in open(f"{work}/expertd-http.log").read()
    assert start("expertd-http", configure("wrong", '{listen: "127.0.0.1"}')).wait(LONG) == 2
    for process in (http, frontend, runtime):
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == 0


try:
    test()
except BaseException:
    for name in os.listdir(work):
        if name.endswith(".log"):
            print(f"--- {name}\n{open(f'{work}/{name}').read()}")
    raise
finally:
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
    for name in os.listdir("/dev/shm"):
        if name.startswith(f"expertd.http-{os.getpid()}."):
            os.unlink(f"/dev/shm/{name}")
    shutil.rmtree(work)
