#!/usr/bin/env python3
"""scripts/host-model: what it says of models, what configuration it writes, and that a server with it computes the model's
experts, also one of several parts."""
# timeout: 600
# once: a script in Python
import json, os, re, shutil, struct, subprocess, sys, tempfile

from support_server import BIN, ROOT, Server, pb
try:
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing} (Debian: python3-numpy)")
    sys.exit(77)
sys.path.insert(0, f"{ROOT}/tests/fixtures")
import make_models as models  # noqa: E402


def host_model(*arguments, status=0):
    done = subprocess.run([f"{ROOT}/scripts/host-model", "--bin", BIN, "--class", "cpu", *map(str, arguments)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == status, f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout if status == 0 else done.stderr


def check(path):
    subprocess.run([f"{BIN}/expertd", "check", path], check=True, stdout=subprocess.DEVNULL)
    with open(path) as file:
        return file.read()


def uids(text):
    """All that a configuration hosts."""
    found = []
    for pattern in re.findall(r'- uid: "([^"]+)"', text):
        prefix, *dims = pattern.split(".")
        grid = [range(int(d), int(d) + 1) if d.isdigit() else range(*map(int, d[1:-1].split(":"))) for d in dims]
        names = [prefix]
        for dim in grid:
            names = [f"{name}.{n}" for name in names for n in dim]
        found += names
    return found


def every_model(folder):
    said = {"olmoe": "2 layers of 4 experts, 2 a token; an expert is 40 x 24, BF16", "mixtral": "36 x 20, F32",
            "granite": "32 x 24, F16", "qwen3": "48 x 28, BF16", "deepseek": "200 x 136, F8_E4M3; 2 shared experts of width 136",
            "gptoss": "64 x 96, MXFP4", "gptoss_plain": "56 x 24, BF16"}
    for name in said:
        models.make(folder, name)
        out = host_model(f"{folder}/{name}", "--out", f"{folder}/{name}.yaml")
        assert said[name] in out, out
        text = check(f"{folder}/{name}.yaml")
        shared = models.LAYERS if name == "deepseek" else 0
        assert len(uids(text)) == models.LAYERS * models.EXPERTS + shared, text
        assert ("limit: 7.0, alpha: 1.702, up_shift: 1, bias: true" in text) == name.startswith("gptoss"), text
        print(f"ok: {name}")


def parts(folder):
    """Together they host each expert once, however they are divided; and what is left of nothing is refused."""
    for split, name, count in (("experts", "olmoe", 3), ("layers", "olmoe", 2), ("experts", "deepseek", 2)):
        hosted = []
        for part in range(count):
            host_model(f"{folder}/{name}", "--out", f"{folder}/part.yaml", "--part", f"{part + 1}/{count}", "--split", split)
            hosted += uids(check(f"{folder}/part.yaml"))
        host_model(f"{folder}/{name}", "--out", f"{folder}/whole.yaml")
        assert sorted(hosted) == sorted(uids(check(f"{folder}/whole.yaml"))), hosted
    assert "leaves nothing" in host_model(f"{folder}/olmoe", "--out", "-", "--part", "1/3", "--split", "layers", status=1)
    assert "not like 2/4" in host_model(f"{folder}/olmoe", "--out", "-", "--part", "5/4", status=2)
    assert "[1:2].[0:4]" in (host_model(f"{folder}/olmoe", "--out", f"{folder}/one.yaml", "--layers", "1:9"), check(f"{folder}/one.yaml"))[1]
    assert "no layer" in host_model(f"{folder}/olmoe", "--out", "-", "--layers", "7:9", status=1)
    print("ok: parts")


def refused(folder):
    """What is missing is said."""
    os.makedirs(f"{folder}/dense")
    with open(f"{folder}/dense/config.json", "w") as file:
        json.dump({"model_type": "llama", "hidden_size": 8}, file)
    assert "no index" in host_model(f"{folder}/dense", "--out", "-", status=1)
    shutil.copy(f"{folder}/mixtral/model.safetensors", f"{folder}/dense/")
    text = host_model(f"{folder}/dense", "--out", "-", status=1)
    assert "number of experts" in text and "llama" in text, text
    with open(f"{folder}/dense/config.json", "w") as file:
        json.dump({"model_type": "mixtral", "hidden_size": 8, "num_local_experts": 4, "intermediate_size": 20}, file)
    assert "does not fit hidden_size 8" in host_model(f"{folder}/dense", "--out", "-", status=1)
    with open(f"{folder}/dense/config.json", "w") as file:
        json.dump({"model_type": "mixtral", "hidden_size": 36, "num_local_experts": 5, "intermediate_size": 20}, file)
    assert "has no expert 4 of layer 0" in host_model(f"{folder}/dense", "--out", "-", status=1)
    with open(f"{folder}/dense/config.json", "w") as file:
        json.dump({"model_type": "mixtral", "hidden_size": 36, "num_local_experts": 4, "intermediate_size": 20, "hidden_act": "tanh"}, file)
    assert "activation 'tanh'" in host_model(f"{folder}/dense", "--out", "-", status=1)
    assert "8 experts" in host_model(f"{folder}/olmoe", "--out", "-", "--memory", 1, "--precision", "fp32")
    text = host_model(f"{folder}/deepseek", "--out", "-", "--memory", 1, "--precision", "fp32", status=1)
    assert "--part K/" in text and "--precision bf16" in text, text
    # A quarter of that has room.
    text = host_model(f"{folder}/deepseek", "--out", "-", "--memory", 1, "--precision", "int8")
    assert "weights in int8" in text and "10 experts, 1 of 1 MiB" in text, text
    print("ok: what is missing")


def rewrite_shared(path):
    """The file's shared experts become BF16 ones, as a model may have them."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])
    for name in [n for n in header if ".shared_experts." in n]:
        tensor = header.pop(name)
        if not name.endswith("_scale_inv"):
            end = max(t["data_offsets"][1] for t in header.values() if "data_offsets" in t)
            size = 2 * tensor["shape"][0] * tensor["shape"][1]
            header[name] = {"dtype": "BF16", "shape": tensor["shape"], "data_offsets": [end, end + size]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + content[8 + length:])


def precisions(folder):
    """The precision fits all tensors that it is for, also those of files that are not there yet."""
    def taken(*options):
        host_model(f"{folder}/mixed", "--out", f"{folder}/mixed.yaml", *options)
        return re.search(r"precision: (\w+)", check(f"{folder}/mixed.yaml")).group(1)

    shutil.copytree(f"{folder}/deepseek", f"{folder}/mixed")
    files = sorted(name for name in os.listdir(f"{folder}/mixed") if name.endswith(".safetensors"))
    assert taken() == taken("--precision", "fp8") == "fp8"
    os.rename(f"{folder}/mixed/{files[0]}", f"{folder}/away")
    assert taken() == taken("--precision", "fp8") == "fp8"
    os.rename(f"{folder}/away", f"{folder}/mixed/{files[0]}")
    rewrite_shared(f"{folder}/mixed/{files[1]}")
    assert taken() == "bf16" and taken("--precision", "int8") == "int8" and taken("--layers", "0:1") == "fp8"
    assert "F8_E4M3 and BF16" in (out := host_model(f"{folder}/mixed", "--out", "-")) and "bf16 is taken" in out, out
    text = host_model(f"{folder}/mixed", "--out", "-", "--precision", "fp8", status=1)
    assert "layers.1.mlp.shared_experts." in text and "in BF16" in text and "--precision bf16" in text, text
    print("ok: precisions")


def forward(client, uid, x):
    header = pb.RequestHeader(version=1, request_id=1, method=pb.FORWARD, uid=uid)
    header.tensors.add(dtype=pb.FLOAT32, shape=x.shape)
    client.socket.send_multipart([header.SerializeToString(), x.tobytes()])
    first, *frames = client.socket.recv_multipart()
    reply = pb.ReplyHeader.FromString(first)
    assert reply.status == pb.OK, f"{uid}: {reply.message}"
    return np.frombuffer(frames[0], "<f4").reshape(x.shape)


def ask(client, header, x):
    header.version = header.request_id = 1
    header.tensors.add(dtype=pb.FLOAT32, shape=x.shape)
    if header.method == pb.BACKWARD:
        header.tensors.add(dtype=pb.FLOAT32, shape=x.shape)
    client.socket.send_multipart([header.SerializeToString()] + [x.tobytes()] * len(header.tensors))
    first, *frames = client.socket.recv_multipart()
    return pb.ReplyHeader.FromString(first), [np.frombuffer(f, "<f4").reshape(x.shape) for f in frames]


def a_layer_in_one_call(client, hosted, weights):
    """Experts of both layers in one message, and that they answer forward alone."""
    random = np.random.default_rng(2)
    rows = [1 + i for i in range(len(hosted))]
    x = random.standard_normal((sum(rows), 40)).astype("<f4")
    reply, (y,) = ask(client, pb.RequestHeader(method=pb.FORWARD, parts=[dict(uid=u, rows=n) for u, n in zip(hosted, rows)]), x)
    assert reply.status == pb.OK and [p.status for p in reply.parts] == [pb.OK] * len(hosted), reply
    for uid, n, end in zip(hosted, rows, np.cumsum(rows)):
        layer, e = map(int, uid.split(".")[1:])
        expected = models.expert(weights(layer, e), x[end - n:end].astype("f8"))
        assert np.abs(y[end - n:end] - expected).max() < 1e-5 * np.abs(expected).max(), uid
    for header in pb.RequestHeader(method=pb.BACKWARD, uid=hosted[0]), pb.RequestHeader(method=pb.BACKWARD, parts=[dict(uid=hosted[0], rows=1)]):
        reply, frames = ask(client, header, x[:1])
        assert reply.status == pb.UNIMPLEMENTED and "backward: false" in reply.message and not frames, reply


def serves(folder):
    """The second of two parts, with weights in bf16, which are the file's."""
    with Server([]) as server:
        host_model(f"{folder}/olmoe", "--out", server.config, "--part", "2/2", "--name", server.name, "--listen", server.endpoint)
        with open(server.config) as file:
            text = file.read()
        assert "precision: bf16" in text and "backward: false" in text
        text = text.replace("precision: bf16", f'precision: bf16, cache_dir: "{server.folder}/cache"')
        with open(server.config, "w") as file:
            file.write(text.replace("server: {", f'server: {{run_dir: "{server.run_dir}", '))
        server.start().wait_alive()
        client, random = server.client(), np.random.default_rng(1)
        _, _, weights = models.make(folder, "olmoe")
        hosted = uids(text)
        assert hosted == [f"olmoe.{n}.{e}" for n in range(models.LAYERS) for e in (2, 3)], hosted
        for uid in hosted:
            layer, e = map(int, uid.split(".")[1:])
            x = random.standard_normal((4, 40)).astype("<f4")
            y, expected = forward(client, uid, x), models.expert(weights(layer, e), x.astype("f8"))
            assert np.abs(y - expected).max() < 1e-5 * np.abs(expected).max(), uid
        a_layer_in_one_call(client, hosted, weights)
        client.close()
        server.stop()
    print("ok: a server")


folder = tempfile.mkdtemp(prefix="expertd-host-model.")
try:
    every_model(folder)
    parts(folder)
    refused(folder)
    precisions(folder)
    serves(folder)
finally:
    shutil.rmtree(folder)
