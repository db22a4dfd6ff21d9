"""A model's experts elsewhere: blocks as transformers 4 and 5 have them, written here, and transformers' own models."""
import os
import subprocess
import sys
import time
import types

import pytest
import torch
from torch import nn

import expertd
from conftest import PATIENCE, ROOT, make_server, refusal
from expertd import messages

HIDDEN, WIDTH, EXPERTS, LAYERS, TOP = 32, 48, 4, 3, 2


def config(kind="olmoe", **more):
    return types.SimpleNamespace(**{**dict(model_type=kind, hidden_size=HIDDEN, intermediate_size=WIDTH, norm_topk_prob=True), **more})


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(HIDDEN, WIDTH, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(WIDTH, HIDDEN, bias=False)

    def forward(self, x):
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Listed(nn.Module):
    """As transformers 4's OlmoeSparseMoeBlock."""

    def __init__(self):
        super().__init__()
        self.top_k, self.norm_topk_prob, self.gate = TOP, True, nn.Linear(HIDDEN, EXPERTS, bias=False)
        self.experts = nn.ModuleList(Expert() for _ in range(EXPERTS))

    def forward(self, hidden):
        flat = hidden.reshape(-1, HIDDEN)
        logits = self.gate(flat)
        weights, chosen = torch.topk(torch.softmax(logits, 1), TOP)
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(flat)
        for e, expert in enumerate(self.experts):
            token, slot = torch.where(chosen == e)
            if len(token):
                out = out.index_add(0, token, expert(flat[token]) * weights[token, slot, None])
        return out.reshape(hidden.shape), logits


class Packed(nn.Module):
    """As transformers 5's OlmoeExperts."""

    def __init__(self, experts):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.stack([torch.cat([e.gate_proj.weight, e.up_proj.weight]).detach() for e in experts]))
        self.down_proj = nn.Parameter(torch.stack([e.down_proj.weight.detach() for e in experts]))


class PackedBlock(nn.Module):
    def __init__(self, listed):
        super().__init__()
        self.gate, self.experts = listed.gate, Packed(listed.experts)

    def forward(self, hidden):
        flat = hidden.reshape(-1, HIDDEN)
        weights, chosen = torch.topk(torch.softmax(self.gate(flat), 1), TOP)
        return self.experts(flat, chosen, weights / weights.sum(-1, keepdim=True)).reshape(hidden.shape)


class Layer(nn.Module):
    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp


class Model(nn.Module):
    def __init__(self, blocks, **more):
        super().__init__()
        self.config, self.layers = config(**more), nn.ModuleList(Layer(block) for block in blocks)

    def forward(self, x):
        for layer in self.layers:
            y = layer.mlp(x)
            x = x + (y[0] if isinstance(y, tuple) else y)
        return x


def blocks():
    torch.manual_seed(5)
    return [Listed() for _ in range(LAYERS)]


def entry(uid, folder, hidden=HIDDEN, width=WIDTH, **more):
    return {"uid": uid, "block": "swiglu", "hidden_dim": hidden, "arguments": {"intermediate_size": width}, "optimizer": "none",
            "max_batch_size": 16, "weights": str(folder), **more}


def uids(prefix, layers, experts):
    return [f"{prefix}.{layer}.{expert}" for layer in layers for expert in experts]


@pytest.fixture(scope="module")
def two_servers(tmp_path_factory):
    """Each has half of the experts of every layer; the second also what does not fit."""
    folder = tmp_path_factory.mktemp("model")
    expertd.save_tensors(str(folder / "model.safetensors"), {
        f"model.layers.{n}.mlp.experts.{e}.{name}.weight": getattr(expert, name).weight
        for n, block in enumerate(blocks()) for e, expert in enumerate(block.experts) for name in ("gate_proj", "up_proj", "down_proj")})
    odd = [{"uid": f"small.0.{e}", "block": "nop", "hidden_dim": 8} for e in range(EXPERTS)]
    odd += [{"uid": f"narrow.0.{e}", "block": "swiglu", "hidden_dim": HIDDEN, "arguments": {"intermediate_size": 8}} for e in range(EXPERTS)]
    with make_server([entry("olmoe.[0:3].[0:2]", folder)], uids=uids("olmoe", range(3), range(2))) as first, \
            make_server([entry("olmoe.[0:3].[2:4]", folder)] + odd,
                        uids=uids("olmoe", range(3), range(2, 4)) + [e["uid"] for e in odd],
                        dht={"bootstrap": first.dht.bootstrap_addresses()}) as second:
        yield first, second


@pytest.mark.parametrize("kind", ["listed", "packed"])
def test_a_models_experts_go_and_its_results_and_gradients_stay(two_servers, kind):
    local = Model(blocks())
    model = Model([PackedBlock(b) for b in blocks()] if kind == "packed" else blocks())
    changed = expertd.offload_experts(model, [s.endpoint for s in two_servers], timeout=PATIENCE)
    assert changed == [0, 1, 2]
    assert {name.rpartition(".mlp.")[2] for name, _ in model.named_parameters()} == {"gate.weight"}
    assert "olmoe.0.0 ... olmoe.0.3" in repr(model)
    x = torch.randn(5, 13, HIDDEN)  # 65 tokens: more than one request an expert
    with torch.no_grad():
        assert torch.allclose(model(x), local(x), atol=1e-4)
    a, b = (x.clone().requires_grad_() for _ in range(2))
    model(a).square().sum().backward()
    local(b).square().sum().backward()
    assert torch.allclose(a.grad, b.grad, atol=2e-3, rtol=1e-3) and a.grad.abs().max() > 0.1
    for mine, other in zip(model.layers, local.layers):
        assert torch.allclose(mine.mlp.gate.weight.grad, other.mlp.gate.weight.grad, atol=2e-3, rtol=1e-3)
    one = torch.randn(1, 1, HIDDEN)
    assert torch.allclose(model(one), local(one), atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(one)
    assert torch.allclose(mixed.float(), local(one), atol=0.1)


def test_only_the_named_layers_change_and_experts_are_found_by_a_dht(two_servers):
    local, model = Model(blocks()), Model(blocks())
    dht = expertd.DHT(two_servers[0].dht.endpoint, timeout=PATIENCE)
    end = time.monotonic() + PATIENCE
    while not all(dht.resolve(uids("olmoe", range(3), range(4)), fresh=True)):  # they join one network
        assert time.monotonic() < end
        time.sleep(0.05)
    assert expertd.offload_experts(model, dht, layers=[2, 0], timeout=PATIENCE) == [0, 2]
    assert isinstance(model.layers[1].mlp.experts, nn.ModuleList)
    x = torch.randn(3, HIDDEN)
    assert torch.allclose(model(x), local(x), atol=1e-4)
    with pytest.raises(expertd.NotFound, match="4 of the 4 experts of layer 1, elsewhere.1.0"):
        expertd.offload_experts(model, dht, layers=[1], prefix="elsewhere")


def test_what_does_not_fit_is_refused_and_nothing_is_changed(two_servers):
    first, second = (s.endpoint for s in two_servers)
    model = Model(blocks())
    for error, match, arguments in (
            (expertd.NotFound, "2 of the 4 experts of layer 0, olmoe.0.2", dict(where=first)),
            (ValueError, r"layers 7; it has some in \[0, 1, 2\]", dict(where=first, layers=[0, 7])),
            (expertd.InvalidArgument, "rows of 32", dict(where=second, prefix="small", layers=[0])),
            (expertd.InvalidArgument, "intermediate size of 8", dict(where=second, prefix="narrow", layers=[0])),
            (expertd.InvalidArgument, "no server", dict(where=[]))):
        with pytest.raises(error, match=match):
            expertd.offload_experts(model, **arguments)
    assert all(isinstance(layer.mlp.experts, nn.ModuleList) for layer in model.layers)
    with pytest.raises(ValueError, match="Linear has no experts"):
        expertd.offload_experts(nn.Linear(2, 2), first, prefix="olmoe")
    with pytest.raises(ValueError, match="no experts that are known"):  # the routing of that family is not known here
        expertd.offload_experts(Model(blocks(), kind="other"), first)


def test_all_calls_of_a_layer_are_under_way_at_once(stand_in):
    held = []

    def answer(request, frames):
        pb = messages.server
        if request.method == pb.value("Method", "LIST"):
            entries = [{"uid": f"olmoe.0.{e}", "alive": True} for e in range(EXPERTS)]
            return pb.ReplyHeader(version=1, list={"experts": entries, "total": EXPERTS}), []
        if request.parts:  # one message, whose parts are then repeated each by itself
            return pb.ReplyHeader(version=1, status=14, parts=[{"status": 14}] * len(request.parts)), []
        held.append(request)
        return refusal(14) if len(held) < EXPERTS else refusal(3, "all four came")
    server = stand_in(answer)
    server.row_shape = [HIDDEN]
    model = Model(blocks()[:1])
    expertd.offload_experts(model, server.endpoint, timeout=PATIENCE, retry_for=PATIENCE)
    with pytest.raises(expertd.InvalidArgument, match="all four came"):
        model(torch.randn(64, HIDDEN))
    assert {r.uid for r in held[:EXPERTS]} == {f"olmoe.0.{e}" for e in range(EXPERTS)}
    (together, *_) = server.asked("FORWARD")
    assert {part.uid: part.request_id for part in together.parts} == {r.uid: r.request_id for r in held[:EXPERTS]}


# ---- transformers' own


def tiny(family, transformers):
    common = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  max_position_embeddings=128, num_experts_per_tok=2, pad_token_id=0, eos_token_id=None, bos_token_id=1)
    torch.manual_seed(3)
    if family == "mixtral":
        return transformers.MixtralForCausalLM(transformers.MixtralConfig(**common, intermediate_size=48, num_local_experts=4))
    if family == "qwen3_moe":
        return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(
            **common, intermediate_size=40, moe_intermediate_size=48, num_experts=4, head_dim=8, norm_topk_prob=True))
    return transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**common, intermediate_size=48, num_experts=4))


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "olmoe"])
def test_a_transformers_model_generates_the_same_tokens(family, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install transformers)")
    model = tiny(family, transformers).eval()
    for p in model.parameters():  # logits that differ: no ties between tokens
        p.data.mul_(3)
    model.save_pretrained(tmp_path)
    prompt = torch.tensor([[1, 5, 9, 33, 2], [7, 7, 40, 3, 12]])
    options = dict(max_new_tokens=12, do_sample=False, attention_mask=torch.ones_like(prompt))
    expected = model.generate(prompt, **options)
    logits = model(prompt).logits
    prefix = family.replace("_", "-")
    with make_server([entry(f"{prefix}.[0:2].[0:4]", tmp_path)], uids=uids(prefix, range(2), range(4))) as server:
        held = sum(p.numel() for p in model.parameters())
        assert expertd.offload_experts(model, server.endpoint, timeout=PATIENCE) == [0, 1]
        assert held - sum(p.numel() for p in model.parameters()) == 2 * 4 * 3 * 32 * 48
        assert torch.allclose(model(prompt).logits, logits, atol=1e-3)
        assert torch.equal(model.generate(prompt, **options), expected)
        embeddings = model.get_input_embeddings().weight
        model(prompt, labels=prompt).loss.backward()
        assert embeddings.grad.abs().sum() > 0

        # Without ever having had the experts' weights.
        class Remote(type(model)):
            def __init__(self, config):
                super().__init__(config)
                expertd.offload_experts(self, server.endpoint, timeout=PATIENCE)
        light = Remote.from_pretrained(tmp_path).eval()
        assert sum(p.numel() for p in light.parameters()) == held - 2 * 4 * 3 * 32 * 48
        assert torch.equal(light.generate(prompt, **options), expected)


def test_the_example_generates_the_same_tokens():
    pytest.importorskip("transformers", reason="transformers is not installed (pip install transformers)")
    done = subprocess.run([sys.executable, os.path.join(ROOT, "examples", "offload.py")], capture_output=True, text=True)
    assert done.returncode == 0 and "the same tokens" in done.stdout, done.stdout + done.stderr
