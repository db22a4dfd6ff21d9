#!/usr/bin/env python3
"""examples/moe_layer: a layer of OLMoE's shape, read from a checkpoint's own files, whose experts two servers share, equals
the plain formula; also when one of them is killed and comes back in the middle of the work."""
# timeout: 600
# once: an example's numbers; what it calls has unit tests
import shutil, subprocess, sys, tempfile, threading

from support_server import BIN, PATIENCE, ROOT, Server, warm_cache
try:
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing} (Debian: python3-numpy)")
    sys.exit(77)
sys.path.insert(0, f"{ROOT}/tests/fixtures")
import make_models as models  # noqa: E402

LAYER, EXPERTS, K, ROWS = 1, models.EXPERTS, 2, 6


class Example:
    """The program, fed batch by batch."""

    def __init__(self, hidden, *arguments):
        self.hidden, self.said, self.saying = hidden, [], threading.Condition()
        self.process = subprocess.Popen([f"{BIN}/moe_layer", "--hidden", str(hidden), "--experts", str(EXPERTS), "--top-k", str(K),
                                         "--rows", str(ROWS), "--layer", f"olmoe.{LAYER}", *arguments],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stderr:
            with self.saying:
                self.said.append(line.decode())
                self.saying.notify_all()

    def wait_until_said(self, text):
        with self.saying:
            assert self.saying.wait_for(lambda: any(text in line for line in self.said), PATIENCE), (text, self.said)

    def ask(self, x):
        self.process.stdin.write(x.astype("<f4").tobytes())

    def answer(self, rows):
        wanted, got = rows * self.hidden * 4, b""
        while len(got) < wanted:
            more = self.process.stdout.read(wanted - len(got))
            assert more, f"the program ended: {self.said}"
            got += more
        return np.frombuffer(got, "<f4").reshape(rows, self.hidden)

    def end(self):
        self.process.stdin.close()
        return self.process.wait(PATIENCE)


def plain(x, router, parts, normalize):
    """The layer by its formula, in float64."""
    x = x.astype("<f4").astype("f8")
    logits = x @ router.T.astype("f8")
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    y = np.zeros_like(x)
    for token, chosen in enumerate(np.argsort(-p, 1)[:, :K]):
        all_of_them = p[token, chosen].sum() if normalize else 1
        for e in chosen:
            y[token] += p[token, e] / all_of_them * models.expert(parts(LAYER, e), x[token:token + 1])[0]
    return y


def compare(y, expected, what):
    error = np.abs(y - expected).max() / np.abs(expected).max()
    assert error < 1e-5, f"{what}: {error}"
    print(f"ok: {what}")


def entry(hidden, inner, folder, experts):
    return (f'{{uid: "olmoe.{LAYER}.{experts}", block: swiglu, hidden_dim: {hidden}, arguments: {{intermediate_size: {inner}}}, '
            f'optimizer: none, backward: false, max_batch_size: 64, weights: "{folder}/olmoe"}}')


def serve_layer(folder):
    hidden, inner, parts = models.make(folder, "olmoe")
    random = np.random.default_rng(5)
    router = random.standard_normal((EXPERTS, hidden)).astype("<f4")
    router.tofile(f"{folder}/router")
    x = [random.standard_normal((ROWS, hidden)) for _ in range(4)]
    warm_cache("device0", "device0.1")  # for one server each
    with Server([entry(hidden, inner, folder, "[0:2]")]) as one, Server([entry(hidden, inner, folder, "[2:4]")]) as other:
        for server in one, other:
            server.start()
        for server in one, other:
            server.wait_alive()
        where = ["--router", f"{folder}/router", one.endpoint, other.endpoint]
        example = Example(hidden, "--patience", str(PATIENCE), *where)
        example.ask(x[0])
        compare(example.answer(ROWS), plain(x[0], router, parts, False), "two servers, one layer")
        other.kill("frontend")
        other.kill("runtime")
        example.ask(x[1])
        example.wait_until_said(f"waiting for olmoe.{LAYER}.")
        other.start()
        compare(example.answer(ROWS), plain(x[1], router, parts, False), "one was killed, and is back")
        example.ask(x[2][:1])  # the last batch may be shorter
        assert example.end() == 0, example.said
        compare(example.answer(1), plain(x[2][:1], router, parts, False), "a batch of one token")
        example = Example(hidden, "--normalize", *where)
        example.ask(x[3])
        compare(example.answer(ROWS), plain(x[3], router, parts, True), "weights among the chosen")
        example.process.stdin.write(b"12345")
        assert example.end() == 1
        example.wait_until_said("ends within a row")
        example = Example(hidden + 1, *where)
        assert example.end() == 1
        example.wait_until_said(f"is not {EXPERTS} x {hidden + 1} float32")
        example = Example(hidden, "--patience", "0", "--router", f"{folder}/router", one.endpoint)
        example.ask(x[0])
        assert example.end() == 1
        example.wait_until_said("no server has said that it hosts it")
        for server in one, other:
            server.stop()


folder = tempfile.mkdtemp(prefix="expertd-moe-layer.")
try:
    serve_layer(folder)
finally:
    shutil.rmtree(folder)
