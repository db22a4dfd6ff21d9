#!/usr/bin/env python3
"""Experts from the files of public models: every layout and number format gives what the formulas say; and what is wrong
with the files is refused with its name."""
# timeout: 600
# once: formulas' numbers; what reads the files has unit tests and fuzzers
import os, shutil, subprocess, sys, tempfile

from support_server import BIN, ROOT, Server, pb
try:
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing} (Debian: python3-numpy)")
    sys.exit(77)
sys.path.insert(0, f"{ROOT}/tests/fixtures")
import make_models as models  # noqa: E402

ROWS = 5
# All servers here compile the same program once ("%.0s": not in the server's own folder).
DEVICE = "{name: cpu0, cache_dir: CACHE}%.0s"


GPT_OSS = ", bias: true, limit: 7, alpha: 1.702, up_shift: 1"


def entry(uid, folder, h, i, arguments="", more=""):
    return (f'{{uid: "{uid}", block: swiglu, hidden_dim: {h}, arguments: {{intermediate_size: {i}{arguments}}}, '
            f'optimizer: none, max_batch_size: 64, weights: "{folder}"{more}}}')


def forward(client, uid, x):
    header = pb.RequestHeader(version=1, request_id=1, method=pb.FORWARD, uid=uid)
    header.tensors.add(dtype=pb.FLOAT32, shape=x.shape)
    client.socket.send_multipart([header.SerializeToString(), x.tobytes()])
    first, *frames = client.socket.recv_multipart()
    reply = pb.ReplyHeader.FromString(first)
    assert reply.status == pb.OK, f"{uid}: {reply.message}"
    return np.frombuffer(frames[0], "<f4").reshape(reply.tensors[0].shape)


def every_layout(folder):
    made = {name: models.make(folder, name) for name in models.MODELS}
    entries = []
    for name, (h, i, _) in made.items():
        uid = name.replace("_", "-")
        entries.append(entry(f"{uid}.[0:{models.LAYERS}].[0:{models.EXPERTS}]", f"{folder}/{name}", h, i,
                             GPT_OSS if name.startswith("gptoss") else ""))
    h, i, parts = made["deepseek"]
    entries.append(entry(f"shared.[0:{models.LAYERS}]", f"{folder}/deepseek", h, i))
    # By names of one's own: the same experts, gate and up the other way round.
    h, i, _ = made["granite"]
    fused = "model.layers.{layer}.block_sparse_moe.input_linear.weight"
    entries.append(entry("own.[0:2].[0:4]", f"{folder}/granite/model.safetensors", h, i, more=(
        f', tensors: {{gate_proj.weight: "{fused}[{{expert}}, {i}:]", up_proj.weight: "{fused}[{{expert}}, :{i}]"}}')))
    with Server(entries, device=DEVICE.replace("CACHE", f"{folder}/cache")) as server:
        server.start().wait_alive()
        client = server.client()
        random = np.random.default_rng(0)
        checked = 0

        def compare(uid, weights, clamped=False):
            nonlocal checked
            x = 3 * random.standard_normal((ROWS, weights[0].shape[1])).astype("<f4")
            y, expected = forward(client, uid, x), models.expert(weights, x.astype("f8"), clamped)
            scale = np.abs(expected).max()
            assert np.abs(y - expected).max() < 1e-5 * scale, f"{uid}: {np.abs(y - expected).max() / scale}"
            checked += 1

        for name, (h, i, parts) in made.items():
            for layer in range(models.LAYERS):
                for e in range(models.EXPERTS):
                    compare(f"{name.replace('_', '-')}.{layer}.{e}", parts(layer, e), name.startswith("gptoss"))
        for layer in range(models.LAYERS):
            compare(f"shared.{layer}", made["deepseek"][2](layer, None))
        gate, up, down = made["granite"][2](1, 3)
        compare("own.1.3", [up, gate, down])
        client.close()
        server.stop()
        print(f"ok: {checked} experts of {len(made)} models")


def kept_as_they_are(folder):
    """FP8 and MXFP4 in device memory as the files have them."""
    for precision, names in ("fp8", ("deepseek", "deepseek_2880")), ("mxfp4", ("gptoss", "gptoss_2880")):
        made = {name: models.make(folder, name) for name in names}
        entries = [entry(f"{name.replace('_', '-')}.[0:{models.LAYERS}].[0:{models.EXPERTS}]", f"{folder}/{name}", h, i,
                         GPT_OSS if name.startswith("gptoss") else "") for name, (h, i, _) in made.items()]
        device = DEVICE.replace("CACHE", f"{folder}/cache").replace("name: cpu0", f"name: cpu0, precision: {precision}")
        with Server(entries, device=device) as server:
            server.start().wait_alive()
            client, random = server.client(), np.random.default_rng(3)
            for name, (h, i, parts) in made.items():
                for layer in range(models.LAYERS):
                    for e, rows in zip(range(models.EXPERTS), (1, 2, 5, 40)):
                        uid, weights = f"{name.replace('_', '-')}.{layer}.{e}", parts(layer, e)
                        x = 3 * random.standard_normal((rows, h)).astype("<f4")
                        y, expected = forward(client, uid, x), models.expert(weights, x.astype("f8"), name.startswith("gptoss"))
                        assert np.abs(y - expected).max() < 1e-5 * np.abs(expected).max(), f"{uid}, {rows} rows"
            client.close()
            server.stop()
        print(f"ok: {precision}")


def refused(what, said, entry_text):
    """A runtime with such an expert ends, and says why."""
    with Server([entry_text], device=DEVICE.replace("CACHE", f"{folder}/cache")) as server:
        done = subprocess.run([f"{BIN}/expertd-runtime", "--config", server.config], stderr=subprocess.PIPE, text=True,
                              timeout=1200)
        assert done.returncode != 0 and done.returncode > 0, f"{what}: ended with {done.returncode}"
        for text in said:
            assert text in done.stderr, f"{what}: '{text}' was not said, but: {done.stderr}"
    print(f"ok: {what}")


def hostile(folder):
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    h, i = 40, 24
    broken = f"{folder}/broken"
    shutil.copytree(f"{folder}/olmoe", broken)
    os.unlink(f"{broken}/model-00002-of-00002.safetensors")
    refused("a missing shard", ["model-00002-of-00002.safetensors", "missing"], entry("o.1.2", broken, h, i))
    refused("another hidden size", [name.replace("up", "gate"), "[24, 40]", "[24, 44]"], entry("o.1.2", f"{folder}/olmoe", 44, i))
    refused("biases that the model has not", ["gate_proj.bias"], entry("o.1.2", f"{folder}/olmoe", h, i, ", bias: true"))
    refused("a template of no parameter", ["no such parameter", "gates.weight"],
            entry("o.1.2", f"{folder}/olmoe", h, i, more=", tensors: {gates.weight: a}"))


folder = tempfile.mkdtemp(prefix="expertd-models.")
try:
    every_layout(folder)
    kept_as_they_are(folder)
    hostile(folder)
finally:
    shutil.rmtree(folder)
