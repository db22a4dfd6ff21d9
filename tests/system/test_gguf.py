#!/usr/bin/env python3
"""Weights in few bits beside what the package gguf makes of the same floats: an expert whose weights the server rounds (int8, int4),
or keeps as gguf rounded them (mxfp4), gives what one gives in fp32 with the numbers that gguf reads back."""
# once: formulas' numbers; what reads the files has unit tests and fuzzers
# timeout: 900
import json, os, shutil, struct, sys, tempfile

from support_server import Server, pb
try:
    import numpy as np
    from gguf import GGMLQuantizationType, quants
except ImportError as missing:
    print(f"skipped: {missing} (Debian: python3-numpy; pip: gguf)")
    sys.exit(77)

HIDDEN, WIDTH, ROWS = 96, 160, (1, 2, 7)
FORMATS = {"int8": GGMLQuantizationType.Q8_0, "int4": GGMLQuantizationType.Q4_0, "mxfp4": GGMLQuantizationType.MXFP4}


def write(path, tensors):
    header, blobs, offset = {}, [], 0
    for name, (dtype, array) in tensors.items():
        blobs.append(np.ascontiguousarray(array).tobytes())
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + len(blobs[-1])]}
        offset += len(blobs[-1])
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def files_blocks(packed):
    """gguf's blocks of MXFP4 (the scale, then 16 bytes of the numbers 0 and 16, 1 and 17, ...) as model files have them."""
    blocks = packed.reshape(packed.shape[0], -1, 17)
    scales, pairs = blocks[..., 0], blocks[..., 1:]
    codes = np.concatenate([pairs & 15, pairs >> 4], axis=-1)
    return codes[..., 0::2] | codes[..., 1::2] << 4, scales


def make(folder, precision):
    """The same expert twice: as the server gets it, and as gguf reads back what it makes of it."""
    random, given, read_back = np.random.default_rng(7), {}, {}
    for name, shape in (("gate", (WIDTH, HIDDEN)), ("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
        values = (random.standard_normal(shape) * 2.0 ** random.integers(-6, 3, (shape[0], 1))).astype("<f4")
        packed, stem = quants.quantize(values, FORMATS[precision]), f"model.layers.0.mlp.experts.0.{name}_proj.weight"
        read_back[stem] = ("F32", quants.dequantize(packed, FORMATS[precision]).astype("<f4"))
        if precision == "mxfp4":
            blocks, scales = files_blocks(packed)
            given |= {stem + "_blocks": ("U8", blocks), stem + "_scales": ("U8", scales)}
        else:
            given[stem] = ("F32", values)
    write(f"{folder}/{precision}.safetensors", given)
    write(f"{folder}/{precision}-gguf.safetensors", read_back)


def answers(folder, precision, files):
    """Of an expert of each file, to the same rows."""
    entries = [f'{{uid: "{file}.0.0", block: swiglu, hidden_dim: {HIDDEN}, arguments: {{intermediate_size: {WIDTH}}}, optimizer: none, '
               f'max_batch_size: 8, weights: "{folder}/{file}.safetensors"}}' for file in files]
    random, results = np.random.default_rng(8), []
    with Server(entries, device=f"{{name: cpu0, precision: {precision}, cache_dir: %s}}") as server:
        server.start().wait_alive()
        client = server.client()
        for file in files:
            results.append([])
            for rows in ROWS:
                x = random.standard_normal((rows, HIDDEN)).astype("<f4") if file == files[0] else results[0][len(results[-1])][0]
                header = pb.RequestHeader(version=1, request_id=1, method=pb.FORWARD, uid=f"{file}.0.0")
                header.tensors.add(dtype=pb.FLOAT32, shape=x.shape)
                client.socket.send_multipart([header.SerializeToString(), x.tobytes()])
                first, *frames = client.socket.recv_multipart()
                reply = pb.ReplyHeader.FromString(first)
                assert reply.status == pb.OK, reply.message
                results[-1].append((x, np.frombuffer(frames[0], "<f4").reshape(x.shape)))
        client.close()
        server.stop()
    return results


folder = tempfile.mkdtemp(prefix="expertd-gguf.")
try:
    for precision in FORMATS:
        make(folder, precision)
    expected = answers(folder, "fp32", [f"{precision}-gguf" for precision in FORMATS])
    for precision, of_gguf in zip(FORMATS, expected):
        (found,) = answers(folder, precision, [precision])
        for (x, y), (same, wanted) in zip(found, of_gguf):
            assert (x == same).all() and np.abs(y - wanted).max() < 1e-5 * np.abs(wanted).max(), precision
        print(f"ok: {precision}")
finally:
    shutil.rmtree(folder)
