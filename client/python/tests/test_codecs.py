"""codecs.py: PROTOCOL.md's formulas, hivemind's bounds, the server's bytes, hostile frames; and experts that use them."""
import asyncio

import numpy as np
import pytest
import torch

import expertd
from conftest import PATIENCE, echo, ffn, make_server
from expertd import codecs, messages
from expertd.codecs import CODECS, decode, encode
from expertd.gather import Settings, Target, call_many

LOSSY = [name for name in CODECS if name != "none"]
# hivemind's own, of randn(128, 128, 64); bfloat16 is not its.
BOUNDS = {"meanstd_16bit": 5e-8, "float16": 5e-8, "bfloat16": 1e-5, "quantile_8bit": 8e-4, "uniform_8bit": 8e-4, "blockwise_8bit": 8e-4}
EXACT = ("float16", "bfloat16", "blockwise_8bit")  # the others' sums depend on the order
WIDTH, ROWS = 512, 17


def there_and_back(name, x):
    frame = encode(CODECS[name], x)
    return x if frame is None else decode(CODECS[name], frame, x.shape)


@pytest.mark.parametrize("name", LOSSY)
def test_what_comes_back_is_within_hiveminds_bounds(name):
    torch.manual_seed(0)
    x = torch.randn(128, 128, 64)
    frame = encode(CODECS[name], x)
    assert len(frame) == codecs.frame_bytes(CODECS[name], x.numel(), 64) < 4 * x.numel()
    y = decode(CODECS[name], frame, x.shape)
    assert y.dtype == torch.float32 and 0 < float((x - y).square().mean()) < BOUNDS[name]
    for constant in (0.0, 3.25):
        z = torch.full((40, 50), constant)
        assert torch.allclose(there_and_back(name, z), z, rtol=1e-2) and torch.isfinite(there_and_back(name, z)).all()
    wide = torch.randn(3, 5000) * torch.tensor([[1e-3], [1.0], [1e3]])
    assert torch.isfinite(there_and_back(name, wide)).all()


def test_the_pages_example():
    """PROTOCOL.md's frames of [[1, -2, 0.5, 0]], which are too small to pay, decoded."""
    x, codebook = [[1.0, -2.0, 0.5, 0.0]], np.zeros(256, np.float32)
    codebook[[67, 148, 165]] = -2, 0.5, 1
    count = np.array([256], np.int64).tobytes()
    frames = {"meanstd_16bit": bytes.fromhex("e73b96be6438062f000000be56c4913f"), "float16": bytes.fromhex("003c00c000380000"),
              "bfloat16": bytes.fromhex("803f00c0003f0000"), "uniform_8bit": count + codebook.tobytes() + bytes.fromhex("a5439484")}
    for name, frame in frames.items():
        assert torch.allclose(decode(CODECS[name], frame, (1, 4)), torch.tensor(x), atol=1e-3), name
    table = codecs._dynamic_map()[0]
    frame = np.array([1, 256], np.int64).tobytes() + np.float32(2).tobytes() + table.tobytes() + bytes.fromhex("db00c97f")
    assert torch.allclose(decode(CODECS["blockwise_8bit"], frame, (1, 4)), torch.tensor(x), rtol=0.02, atol=0.02)
    assert (table[0], table[127], table[255]) == (-1.0, 0.0, 1.0) and (np.diff(table) > 0).all()


def test_what_a_codec_cannot_say_or_would_not_make_smaller_travels_as_it_is():
    x = torch.randn(40, 50)
    for name in ("meanstd_16bit", "uniform_8bit", "quantile_8bit", "blockwise_8bit"):
        for value in (float("nan"), float("inf"), -float("inf")):
            odd = x.clone()
            odd[3, 4] = value
            assert encode(CODECS[name], odd) is None, (name, value)
        assert encode(CODECS[name], torch.randn(1, 2)) is None and encode(CODECS[name], torch.empty(0, 5)) is None
    odd = torch.tensor([[float("nan"), float("inf"), -float("inf"), 1e6]])
    half = there_and_back("float16", odd)[0]
    assert half[0].isnan() and half[1:].tolist() == [65504.0, -65504.0, 65504.0]
    assert there_and_back("bfloat16", odd)[0][1:3].tolist() == [float("inf"), -float("inf")]
    with pytest.raises(ValueError, match="'zip' is no codec"):
        codecs.codec_number("zip")
    assert codecs.codec_number("FLOAT16") == codecs.codec_number(2) == 2 and codecs.codec_name(None) == "none"


@pytest.mark.parametrize("name", LOSSY)
def test_frames_that_lie_are_errors(name):
    x, codec = torch.randn(20, 300), CODECS[name]
    good = encode(codec, x).tobytes()
    lies = [good[:-1], good + b"x", b""]
    if "8bit" in name:
        head = 16 if name == "blockwise_8bit" else 8
        lies += [good[:head - 8] + np.int64(count).tobytes() + good[head:] for count in (-1, 255, 1 << 62)]
        lies += [good[:head] + np.float32(value).tobytes() + good[head + 4:] for value in (np.nan, np.inf)]
        if head == 16:
            lies.append(np.int64(1 << 62).tobytes() + good[8:])
    for lie in lies:
        with pytest.raises(expertd.Internal):
            decode(codec, lie, x.shape)
    with pytest.raises(expertd.Internal, match="none that"):
        decode(99, good, x.shape)


@pytest.fixture(scope="module")
def nop():
    entries = [{"uid": "nop.0", "block": "nop", "hidden_dim": WIDTH, "max_batch_size": 256},
               {"uid": "nop.1", "block": "nop", "hidden_dim": WIDTH, "max_batch_size": 256, "compression": "uniform_8bit"},
               ffn("ffn.0", hidden_dim=64, compression="float16"), ffn("ffn.1", hidden_dim=64)]
    with make_server(entries) as server:
        yield server


@pytest.mark.parametrize("name", LOSSY)
def test_the_server_reads_and_writes_the_same(nop, name):
    codec, x = CODECS[name], torch.randn(ROWS, WIDTH)
    plain, coded = (expertd.Client(nop.endpoint, timeout=PATIENCE, compression=c) for c in (None, name))
    frame = encode(codec, x)
    mine = decode(codec, frame, x.shape)
    # One way: the server decodes what was encoded here. A plain reply cannot be asked for beside it by a client, so by hand.
    pb = messages.server
    from expertd.call import Call
    from expertd.transport import SERVER, transport
    header = pb.RequestHeader(version=1, method=4, uid="nop.0", tensors=[pb.Tensor(dtype=1, shape=x.shape, codec=codec)])
    call = Call(header.SerializeToString(), [memoryview(frame)], uid="nop.0", backward=False, timeout=PATIENCE, retry_for=0)
    transport().connection(nop.endpoint, SERVER).start(call)
    (theirs,) = plain.outputs(call)
    assert torch.allclose(theirs, mine, rtol=1e-6, atol=1e-7)
    # The other: it encodes what was sent as it is.
    header = pb.RequestHeader(version=1, method=4, uid="nop.0", tensors=[pb.Tensor(dtype=1, shape=x.shape)], reply_codecs=[codec])
    call = Call(header.SerializeToString(), [memoryview(x.numpy())], uid="nop.0", backward=False, timeout=PATIENCE, retry_for=0)
    transport().connection(nop.endpoint, SERVER).start(call)
    assert call.result().tensors[0].codec == codec
    encoded = np.frombuffer(call.reply_frames[0].buffer, np.uint8)
    assert encoded.size == frame.size
    same = float((encoded == frame).mean())
    assert same == 1.0 if name in EXACT else same > 0.95, same
    # Both, by the client.
    (both,) = coded.forward("nop.0", [x])
    assert float((both - x).square().mean()) < 4 * BOUNDS[name]
    (grad,) = coded.backward("nop.0", [x], [x])
    assert float((grad - x).square().mean()) < 4 * BOUNDS[name]


def test_an_expert_uses_the_codec_that_its_server_advises_or_its_own(nop):
    x = torch.randn(8, WIDTH)
    advised = expertd.RemoteExpert("nop.1", nop.endpoint, timeout=PATIENCE)
    assert advised.compression == "uniform_8bit" and "blockwise_8bit" in advised.info.forward_schema[0].codecs
    assert 0 < float((advised(x) - x).square().mean()) < 4e-3
    assert torch.equal(expertd.RemoteExpert("nop.1", nop.endpoint, timeout=PATIENCE, compression="none")(x), x)
    assert not torch.equal(expertd.RemoteExpert("nop.0", nop.endpoint, timeout=PATIENCE, compression="blockwise_8bit")(x), x)
    assert torch.equal(expertd.RemoteExpert("nop.0", nop.dht, timeout=PATIENCE)(x), x)
    for wrong in ("zip", 99):
        with pytest.raises(ValueError, match="no codec"):
            expertd.RemoteExpert("nop.0", nop.endpoint, compression=wrong)
    # It learns and has gradients all the same.
    y = torch.randn(8, 64, requires_grad=True)
    expert, plain = (expertd.RemoteExpert("ffn.0", nop.endpoint, timeout=PATIENCE, compression=c) for c in (None, "none"))
    assert torch.allclose(expert(y), plain(y), atol=1e-2) and not torch.equal(expert(y), plain(y))
    (ours,), (theirs,) = (torch.autograd.grad(one(y).square().sum(), y) for one in (expert, plain))
    assert torch.allclose(ours, theirs, atol=5e-2) and not torch.equal(ours, theirs)


def test_a_mixture_uses_the_codec(nop):
    x = torch.randn(8, 64)
    options = {"in_features": 64, "grid_size": (2,), "dht": nop.dht, "uid_prefix": "ffn.", "k_best": 2, "forward_timeout": PATIENCE}
    plain = expertd.RemoteMixtureOfExperts(compression="none", **options)
    coded = expertd.RemoteMixtureOfExperts(compression="float16", **options)
    coded.load_state_dict(plain.state_dict())
    assert torch.allclose(plain(x), coded(x), atol=1e-2) and not torch.equal(plain(x), coded(x))


def test_many_calls_say_the_codec(stand_in):
    server = stand_in(echo)
    x = torch.randn(64, 4)
    mask, y = call_many([[Target("e.0", (server.endpoint,), 64, "float16")]] * 64, Settings(forward_timeout=PATIENCE),
                        [(torch.float32, (4,))], x)
    (request,) = server.requests
    assert request.tensors[0].codec == 2 and list(request.reply_codecs) == [2] and mask.all()
    assert torch.equal(y[:, 0], x.half().float())


def test_as_hivemind_does():
    asyncio.set_event_loop(asyncio.new_event_loop())  # which it wants when it is imported, and asyncio.run() of another test has taken away
    compression = pytest.importorskip("hivemind.compression", reason="hivemind is not installed")
    from hivemind.proto import runtime_pb2
    x = torch.randn(64, 512)
    for name in LOSSY:
        if name == "bfloat16":
            continue
        try:
            theirs = compression.serialize_torch_tensor(x, runtime_pb2.CompressionType.Value(name.upper()))
        except ImportError:  # of bitsandbytes, for blockwise_8bit
            continue
        back = compression.deserialize_torch_tensor(theirs)
        assert torch.allclose(decode(CODECS[name], theirs.buffer, x.shape), back), name
        theirs.buffer = encode(CODECS[name], x).tobytes()
        # The bounds are for more elements than these; in no case is ours the worse of the two by much.
        bound = max(BOUNDS[name], 1.25 * float((back - x).square().mean()))
        assert float((compression.deserialize_torch_tensor(theirs) - x).square().mean()) < bound, name
