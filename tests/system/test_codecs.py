#!/usr/bin/env python3
"""Codecs over the wire: encoded here by PROTOCOL.md's formulas alone, decoded by a whole server, and the other way."""
# timeout: 600
import json, os, shutil, signal, socket, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
try:
    import numpy as np
    import zmq
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)
for program in ("expertctl", "expertd-frontend", "expertd-runtime"):
    if not os.path.exists(f"{BUILD}/bin/{program}"):
        print(f"skipped: {program} is not built")
        sys.exit(77)
folder = tempfile.mkdtemp()
os.chdir(folder)
subprocess.run(["protoc", "--python_out=.", "-I" + ROOT + "/proto", "expertd.proto"], check=True)
sys.path.insert(0, folder)
import expertd_pb2 as pb  # noqa: E402
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support_cache import warm_cache  # noqa: E402

WIDTH, ROWS, BLOCK = 512, 17, 4096
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
ENDPOINT, DHT = (f"tcp://127.0.0.1:{p.getsockname()[1]}" for p in ports)
for p in ports:
    p.close()
with open("expertd.yaml", "w") as out:
    out.write(f"""
server: {{name: codecs-{os.getpid()}, run_dir: "{folder}/run"}}
frontend: {{listen: ["{ENDPOINT}"]}}
dht: {{listen: "{DHT}", port: 0, network_id: {os.getpid()}}}
devices:
  - {{name: device0, cache_dir: "{warm_cache()}"}}
experts:
  - {{uid: nop.0, block: nop, hidden_dim: {WIDTH}, max_batch_size: 64, compression: uniform_8bit}}
  - {{uid: half.0, block: swiglu, hidden_dim: {WIDTH}, max_batch_size: 64, dtype: float16, optimizer: none}}
  - {{uid: half.1, block: swiglu, hidden_dim: {WIDTH}, max_batch_size: 64, dtype: bfloat16, optimizer: none}}
""")


# ---- the formulas -----------------------------------------------------------------------------------------------------

def bfloat16(x):
    bits = x.view("<u4").astype("u8")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def meanstd(x):
    rows = x.reshape(-1, x.shape[-1]).astype("f8")
    mean = rows.mean(axis=1).astype("<f4")
    deviation = np.maximum(np.sqrt(((rows - mean[:, None]) ** 2).mean(axis=1)), 2.0 ** -23).astype("<f4")
    halves = ((rows - mean[:, None]) / deviation[:, None]).astype("<f2")
    return halves.tobytes() + mean.tobytes() + deviation.tobytes()


def with_codebook(x, index):
    sums, counts = np.bincount(index, x.ravel(), 256), np.bincount(index, minlength=256)
    codebook = (sums / np.maximum(counts, 1)).astype("<f4")
    return np.int64(256).tobytes() + codebook.tobytes() + index.astype("u1").tobytes()


def uniform(x):
    flat = x.ravel().astype("f8")
    scale = 6 * flat.std(ddof=1) / 256
    return with_codebook(x, np.clip(np.rint((flat - flat.mean()) / scale) + 128, 0, 255).astype("i8"))


def quantile(x):
    borders = np.quantile(x.ravel(), np.linspace(0, 1, 257)[1:-1])
    return with_codebook(x, np.searchsorted(borders, x.ravel(), side="left"))


def dynamic_map():
    values = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2 ** decade + 1)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade - 6)
        values += [*middles, *-middles]
    return np.sort(np.array(values)).astype("<f4")


def blockwise(x):
    codebook, flat = dynamic_map(), x.ravel()
    blocks = -(-flat.size // BLOCK)
    largest = np.array([np.abs(flat[b * BLOCK:(b + 1) * BLOCK]).max() for b in range(blocks)], "<f4")
    scaled = flat / np.repeat(largest, BLOCK)[:flat.size]
    index = np.searchsorted((codebook[1:] + codebook[:-1]) / 2, scaled)
    return (np.int64(blocks).tobytes() + np.int64(256).tobytes() + largest.tobytes() + codebook.tobytes() +
            index.astype("u1").tobytes())


def decode(codec, frame, shape):
    n, last = int(np.prod(shape)), shape[-1]
    if codec == pb.RAW:
        return np.frombuffer(frame, "<f4").reshape(shape)
    if codec == pb.CODEC_FLOAT16:
        return np.frombuffer(frame, "<f2").astype("f4").reshape(shape)
    if codec == pb.CODEC_BFLOAT16:
        return (np.frombuffer(frame, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    if codec == pb.CODEC_MEANSTD_16BIT:
        y = np.frombuffer(frame, "<f2", n).astype("f4").reshape(-1, last)
        mean, deviation = np.frombuffer(frame, "<f4", offset=2 * n).reshape(2, -1)
        return (y * deviation[:, None] + mean[:, None]).reshape(shape)
    if codec == pb.CODEC_BLOCKWISE_8BIT:
        blocks, codes = np.frombuffer(frame, "<i8", 2)
        assert blocks == -(-n // BLOCK) and codes == 256
        largest = np.frombuffer(frame, "<f4", blocks, 16)
        codebook = np.frombuffer(frame, "<f4", 256, 16 + 4 * blocks)
        index = np.frombuffer(frame, "u1", n, 16 + 4 * blocks + 1024)
        return (codebook[index] * np.repeat(largest, BLOCK)[:n]).reshape(shape)
    assert np.frombuffer(frame, "<i8", 1)[0] == 256
    return np.frombuffer(frame, "<f4", 256, 8)[np.frombuffer(frame, "u1", n, 1032)].reshape(shape)


ENCODERS = {pb.CODEC_MEANSTD_16BIT: meanstd, pb.CODEC_FLOAT16: lambda x: x.astype("<f2").tobytes(),
            pb.CODEC_QUANTILE_8BIT: quantile, pb.CODEC_UNIFORM_8BIT: uniform, pb.CODEC_BLOCKWISE_8BIT: blockwise,
            pb.CODEC_BFLOAT16: bfloat16}
ERRORS = {pb.RAW: 0, pb.CODEC_MEANSTD_16BIT: 1e-7, pb.CODEC_FLOAT16: 1e-7, pb.CODEC_QUANTILE_8BIT: 1e-3,
          pb.CODEC_UNIFORM_8BIT: 1e-3, pb.CODEC_BLOCKWISE_8BIT: 1e-3, pb.CODEC_BFLOAT16: 1e-5}
NAMES = {codec: pb.Codec.Name(codec).replace("CODEC_", "").lower() for codec in ENCODERS}
sock = zmq.Context.instance().socket(zmq.DEALER)
sock.linger = 0
sock.connect(ENDPOINT)
last_id = 0
client_id = os.urandom(16)


def call(method, tensors, frames, reply_codecs=(), request_id=None, uid="nop.0"):
    """The reply's header and frames."""
    global last_id
    last_id += 1
    header = pb.RequestHeader(version=1, request_id=request_id or last_id, method=method, uid=uid, tensors=tensors,
                              reply_codecs=reply_codecs, client_id=client_id)
    sock.send_multipart([header.SerializeToString(), *frames])
    assert sock.poll(600000), "no answer"
    first, *rest = sock.recv_multipart()
    return pb.ReplyHeader.FromString(first), rest


def tensor(x, codec=pb.RAW):
    return pb.Tensor(dtype=pb.FLOAT32, shape=x.shape, codec=codec)


def mse(a, b):
    return float(((a.astype("f8") - b.astype("f8")) ** 2).mean())


# ---- tests --------------------------------------------------------------------------------------------------------------

x = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype("<f4")


def info_names_them():
    reply, _ = call(pb.INFO, [], [])
    assert list(reply.info.forward_schema.tensors[0].codecs) == sorted(ENCODERS), reply.info.forward_schema
    assert reply.info.compression == pb.CODEC_UNIFORM_8BIT, reply.info
    said = subprocess.run([f"{BUILD}/bin/expertctl", "-e", ENDPOINT, "info", "nop.0", "--json"], capture_output=True)
    assert json.loads(said.stdout)["compression"] == "uniform_8bit", said


def each_way_alone_and_both():
    for codec, encode in ENCODERS.items():
        frame = encode(x)
        there = decode(codec, frame, x.shape)
        assert 0 < mse(x, there) <= ERRORS[codec], (NAMES[codec], mse(x, there))
        reply, frames = call(pb.FORWARD, [tensor(x, codec)], [frame])
        assert reply.status == pb.OK and reply.tensors[0].codec == pb.RAW, reply
        back = decode(pb.RAW, frames[0], x.shape)
        assert np.allclose(back, there, rtol=1e-6, atol=1e-7), (NAMES[codec], np.abs(back - there).max())
        reply, frames = call(pb.FORWARD, [tensor(x)], [x], [codec])
        assert reply.status == pb.OK and reply.tensors[0].codec == codec, reply
        assert len(frames[0]) == len(frame) and mse(x, decode(codec, frames[0], x.shape)) <= ERRORS[codec]
        reply, frames = call(pb.BACKWARD, [tensor(x, codec), tensor(x)], [frame, x], [codec])
        assert reply.status == pb.OK and mse(x, decode(codec, frames[0], x.shape)) <= ERRORS[codec], reply


def rows_may_be_of_16_bits():
    for uid, dtype in (("half.0", pb.FLOAT16), ("half.1", pb.BFLOAT16)):
        codec = pb.CODEC_FLOAT16 if dtype == pb.FLOAT16 else pb.CODEC_BFLOAT16
        info, _ = call(pb.INFO, [], [], uid=uid)
        assert [t.dtype for t in info.info.forward_schema.tensors] == [dtype], info
        said = subprocess.run([f"{BUILD}/bin/expertctl", "-e", ENDPOINT, "info", uid], capture_output=True, text=True)
        assert f"input {pb.DType.Name(dtype).lower()}[rows, {WIDTH}]" in said.stdout, said
        assert f"intermediate_size {4 * WIDTH}, activation silu, bias false, limit 0" in said.stdout, said
        frame, narrow = ENCODERS[codec](x), pb.Tensor(dtype=dtype, shape=x.shape)
        reply, frames = call(pb.FORWARD, [narrow], [frame], uid=uid)
        assert reply.status == pb.OK and reply.tensors[0].dtype == dtype and len(frames[0]) == 2 * x.size, reply
        y = decode(codec, frames[0], x.shape)
        assert np.isfinite(y).all() and y.std() > 1e-3, y
        reply, frames = call(pb.BACKWARD, [narrow, narrow], [frame, frame], uid=uid)
        assert reply.status == pb.OK and reply.tensors[0].dtype == dtype and len(frames[0]) == 2 * x.size, reply
        reply, frames = call(pb.FORWARD, [tensor(x)], [x], uid=uid)
        assert reply.status == pb.INVALID_ARGUMENT and not frames, reply


def a_repeat_gets_the_first_answer():
    frame = ENCODERS[pb.CODEC_UNIFORM_8BIT](x)
    first = call(pb.BACKWARD, [tensor(x), tensor(x, pb.CODEC_UNIFORM_8BIT)], [x, frame], [pb.CODEC_FLOAT16], 1 << 40)
    again = call(pb.BACKWARD, [tensor(x), tensor(x, pb.CODEC_UNIFORM_8BIT)], [x, frame], [pb.CODEC_FLOAT16], 1 << 40)
    assert first[0].status == again[0].status == pb.OK and first[1] == again[1]


def what_a_codec_cannot_say_travels_raw():
    odd = x.copy()
    odd[3, 4], odd[5, 6] = np.nan, np.inf
    for codec in (pb.CODEC_UNIFORM_8BIT, pb.CODEC_QUANTILE_8BIT, pb.CODEC_BLOCKWISE_8BIT, pb.CODEC_MEANSTD_16BIT):
        reply, frames = call(pb.FORWARD, [tensor(odd)], [odd], [codec])
        assert reply.status == pb.OK and reply.tensors[0].codec == pb.RAW, reply
        assert frames[0] == odd.tobytes()
    small = np.ones((1, WIDTH), "<f4")[:, :]
    reply, frames = call(pb.FORWARD, [tensor(small)], [small], [pb.CODEC_UNIFORM_8BIT])
    assert decode(reply.tensors[0].codec, frames[0], small.shape).tolist() == small.tolist()


def refused(status, says, codec, frame, reply_codecs=()):
    reply, frames = call(pb.FORWARD, [tensor(x, codec)], [frame], reply_codecs)
    assert reply.status == status and says in reply.message and not frames, reply


def frames_that_lie_hurt_nobody():
    for codec, encode in ENCODERS.items():
        frame = encode(x)
        refused(pb.INVALID_ARGUMENT, "bytes, its frame has", codec, frame[:-1])
        refused(pb.INVALID_ARGUMENT, "bytes, its frame has", codec, frame + b"x")
        refused(pb.INVALID_ARGUMENT, "bytes, its frame has", codec, b"")
    for codec in (pb.CODEC_UNIFORM_8BIT, pb.CODEC_QUANTILE_8BIT, pb.CODEC_BLOCKWISE_8BIT):
        head = 16 if codec == pb.CODEC_BLOCKWISE_8BIT else 8
        frame = bytearray(ENCODERS[codec](x))
        frame[head - 8:head] = np.int64(-1).tobytes()
        refused(pb.INVALID_ARGUMENT, "256 numbers", codec, bytes(frame))
        for value in (np.nan, np.inf, -np.inf):
            frame = bytearray(ENCODERS[codec](x))
            frame[head + 40:head + 44] = np.float32(value).tobytes()
            refused(pb.INVALID_ARGUMENT, "NaN or Inf", codec, bytes(frame))
    frame = bytearray(ENCODERS[pb.CODEC_BLOCKWISE_8BIT](x))
    frame[:8] = np.int64(1 << 62).tobytes()
    refused(pb.INVALID_ARGUMENT, "largest value", pb.CODEC_BLOCKWISE_8BIT, bytes(frame))
    refused(pb.UNIMPLEMENTED, "codec 99", 99, x.tobytes())
    refused(pb.UNIMPLEMENTED, "codec 98", pb.RAW, x.tobytes(), [98])
    each_way_alone_and_both()


def expertctl_compresses():
    np.save("x.npy", x)
    for codec, name in NAMES.items():
        done = subprocess.run([f"{BUILD}/bin/expertctl", "-e", ENDPOINT, "-t", "60", "forward", "nop.0", "-i", "x.npy",
                               "-o", "y.npy", "--compression", name], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done
        error = mse(x, np.load("y.npy"))
        assert 0 < error <= 4 * ERRORS[codec], (name, error)
    done = subprocess.run([f"{BUILD}/bin/expertctl", "forward", "nop.0", "-i", "x.npy", "--compression", "zip"],
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and "'zip' is no codec" in done.stderr, done


def as_hivemind_does():
    try:
        import torch
        from hivemind.compression import deserialize_torch_tensor, serialize_torch_tensor
        from hivemind.proto import runtime_pb2
    except ImportError as missing:
        print(f"(not compared with hivemind's own: {missing})")
        return
    for codec in ENCODERS:
        if codec == pb.CODEC_BFLOAT16:
            continue
        theirs = serialize_torch_tensor(torch.from_numpy(x), runtime_pb2.CompressionType.Value(NAMES[codec].upper()))
        ours = decode(codec, theirs.buffer, x.shape)
        assert np.array_equal(ours, deserialize_torch_tensor(theirs).numpy()), NAMES[codec]
        reply, frames = call(pb.FORWARD, [tensor(x, codec)], [theirs.buffer], [codec])
        assert reply.status == pb.OK, reply
        theirs.buffer = frames[0]
        assert mse(x, deserialize_torch_tensor(theirs).numpy()) <= 4 * ERRORS[codec], NAMES[codec]


log = open("server.log", "w+")
server = subprocess.Popen([f"{ROOT}/scripts/start", "--config", "expertd.yaml", "--bin", f"{BUILD}/bin"], stderr=log)
failed = 1
try:
    subprocess.run([f"{BUILD}/bin/expertctl", "-e", ENDPOINT, "-t", "500", "wait"], check=True, timeout=600)
    for test in (info_names_them, each_way_alone_and_both, rows_may_be_of_16_bits, a_repeat_gets_the_first_answer,
                 what_a_codec_cannot_say_travels_raw, frames_that_lie_hurt_nobody, expertctl_compresses,
                 as_hivemind_does):
        test()
        print(f"ok {test.__name__}", flush=True)
    failed = 0
except (AssertionError, subprocess.SubprocessError) as problem:
    log.seek(0)
    print(f"FAILED: {problem!r}\n{log.read()[-4000:]}")
finally:
    server.send_signal(signal.SIGTERM)
    server.wait(600)
    shutil.rmtree(folder, ignore_errors=True)
sys.exit(failed)
