"""export() and register_expert_class: modules become blocks, which compute what the modules do."""
import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import expertd
from conftest import PATIENCE, make_server
from expertd.declaration import evaluate
from expertd.registry import name_to_block, name_to_input

H, TOKENS, HEADS = 16, 6, 4


class Ffn(nn.Module):
    """hivemind's ffn, with its gelu written out."""

    def __init__(self, hidden=H):
        super().__init__()
        self.ffn, self.ffn_output = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.layer_norm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x):
        h = self.ffn(x)
        h = 0.5 * h * (1 + torch.tanh(0.7978845608 * h * (1 + 0.044715 * h * h)))
        return self.layer_norm(x + self.ffn_output(h))


class Multihead(nn.Module):
    """Several inputs and outputs, dropout, an in-place activation, keywords."""

    def __init__(self, hidden=H):
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(hidden * n, 10, bias=n != 2) for n in (1, 2, 3))
        self.act, self.drop, self.last = nn.SiLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 3)
        self.middle = nn.Linear(10, 8)

    def forward(self, a, b, *, c=None):
        total = self.one(a) + self.two(b) + self.three(c)
        return {"total": self.drop(total), "last": self.last(self.act(self.middle(total)))}


class RmsNorm(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(hidden) + 0.5)

    def forward(self, x):
        dtype, x = x.dtype, x.to(torch.float32)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)).to(dtype)


class Gated(nn.Module):
    """A decoder's feed-forward, whose parts are in modules of their own."""

    def __init__(self, hidden=H):
        super().__init__()
        self.norm = RmsNorm(hidden)
        self.mlp = nn.ModuleDict({name: nn.Linear(hidden, 2 * hidden, bias=False) for name in ("gate", "up")})
        self.down = nn.Linear(2 * hidden, hidden, bias=False)

    def forward(self, x):
        y = self.norm(x)
        return x + self.down(functional.silu(self.mlp["gate"](y)) * self.mlp["up"](y))


class Masked(nn.Module):
    """hivemind's det_dropout."""

    def __init__(self, hidden=H):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden))

    def forward(self, x, mask):
        return self.inner(x * mask / 0.8)


class Attended(nn.Module):
    """Attention written out, and pre-norm: what nn.MultiheadAttention does not do."""

    def __init__(self, hidden=H):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(hidden), nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, x, mask):
        rows, tokens, size = x.shape
        q, k, v = (part.view(rows, tokens, HEADS, size // HEADS).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, dim=-1))
        shares = ((q @ k.transpose(-2, -1)) / math.sqrt(size // HEADS)).masked_fill(mask[:, None, None, :], -math.inf).softmax(-1)
        return x + self.out((shares @ v).transpose(1, 2).reshape(rows, tokens, size))


class Crossed(nn.Module):
    """Queries and keys from different values, tokens first, as hivemind's transformer has them."""

    def __init__(self, hidden=H):
        super().__init__()
        self.other, self.attention = nn.Linear(hidden, hidden), nn.MultiheadAttention(hidden, HEADS, dropout=0.1)

    def forward(self, x, mask):
        t = x.transpose(0, 1)
        attended, _ = self.attention(t, self.other(t), t, key_padding_mask=mask)
        return x + attended.transpose(0, 1)


class Scaled(nn.Module):
    """scaled_dot_product_attention and nn.RMSNorm, of newer versions of PyTorch."""

    def __init__(self, hidden=H):
        super().__init__()
        self.norm, self.q, self.k, self.v = nn.RMSNorm(hidden), *(nn.Linear(hidden, hidden, bias=False) for _ in range(3))

    def forward(self, x, mask):
        y = self.norm(x)
        q, k, v = (linear(y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for linear in (self.q, self.k, self.v))
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=~mask[:, None, None, :])
        return x + attended.transpose(1, 2).flatten(2)


class Apart(nn.Module):
    """Activations of what is no linear layer, and of what others read without one, before and after."""

    def __init__(self, hidden=H):
        super().__init__()
        self.one, self.two, self.norm = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden), nn.LayerNorm(hidden)

    def forward(self, x):
        first, second = self.one(functional.gelu(x)), self.two(functional.relu(self.norm(x)))
        first = first + functional.silu(first)
        active = functional.silu(second)
        return functional.gelu(first * active + second + active, approximate="tanh")


class Fused(nn.Module):
    """A gate and what it lets through in one matrix; and columns of which some are read by nothing."""

    def __init__(self, hidden=H):
        super().__init__()
        self.gate_up, self.down, self.head = nn.Linear(hidden, 4 * hidden, bias=False), nn.Linear(2 * hidden, hidden), nn.Linear(hidden, 9)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        head = self.head(x + self.down(functional.silu(gate) * up))
        first, rest = head[..., :2], head.narrow(-1, 2, 6)
        return {"first": functional.relu(first), "sum": rest.split(3, -1)[0] + rest[:, 3:]}


class Grouped(nn.Module):
    """Queries and keys in one matrix, values in another."""

    def __init__(self, hidden=H):
        super().__init__()
        self.qk, self.v = nn.Linear(hidden, 2 * hidden), nn.Linear(hidden, hidden)

    def forward(self, x):
        rows, tokens, size = x.shape
        q, k = self.qk(x).split(size, dim=2)
        q, k, v = (part.view(rows, tokens, HEADS, size // HEADS).transpose(1, 2) for part in (q, k, self.v(x)))
        return ((q @ k.transpose(-2, -1)) / math.sqrt(size // HEADS)).softmax(-1).matmul(v).transpose(1, 2).reshape(rows, tokens, size)


class Constants(nn.Module):
    """Factors and terms that do not train: Python's numbers, buffers for each column and for each of a row's, tensors that are
    made on the way, a parameter that is frozen."""

    def __init__(self, hidden=H):
        super().__init__()
        self.one, self.two = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.register_buffer("bias", torch.randn(hidden))
        self.register_buffer("table", torch.randn(1, TOKENS, hidden))
        self.register_buffer("alpha", torch.tensor(0.3))
        self.register_buffer("each", torch.rand(TOKENS, 1) + 0.5, persistent=False)
        self.frozen = nn.Parameter(torch.rand(hidden) + 0.5, requires_grad=False)

    def forward(self, x):
        x = x + self.table - self.bias / 2
        y = functional.relu(self.one(x)) * 0.5 - 1
        z = torch.add(self.two(y * self.frozen), torch.full_like(y, 0.25), alpha=2) * self.each
        return x * self.alpha - 0.7 * z + y / torch.linspace(1, 2, x.shape[-1]) + torch.sub(z, y, alpha=0.1)


class Learned(nn.Module):
    """Parameters, element by element: the scale of a residual, positions of two kinds, a shift."""

    def __init__(self, hidden=H):
        super().__init__()
        self.linear, self.embedding = nn.Linear(hidden, hidden), nn.Embedding(TOKENS + 2, hidden)
        self.positions, self.shift = nn.Parameter(torch.zeros(1, TOKENS, hidden)), nn.Parameter(torch.randn(hidden))
        self.gamma = nn.Parameter(torch.full((hidden,), 0.1))

    def forward(self, x):
        x = x + self.positions + self.embedding(torch.arange(x.shape[1]))
        return x + self.gamma * functional.gelu(self.linear(2 * x - self.shift))


class Curved(nn.Module):
    """Activations with factors before and after, and attention with a scale of its own."""

    def __init__(self, hidden=H):
        super().__init__()
        self.qkv, self.one = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        attended = ((q @ k.transpose(-2, -1) * 0.3).softmax(-1) @ v).transpose(1, 2).flatten(2)
        h = self.one(x)
        return attended + h * torch.sigmoid(1.702 * h) - functional.silu(3 * x)


class Mixed(nn.Module):
    """Products of values: of whole rows, and head by head without a softmax."""

    def __init__(self, hidden=H):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(hidden, hidden) for _ in range(3))

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        whole = (q @ k.transpose(1, 2) / TOKENS) @ v
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
        return whole + (q @ k.transpose(-2, -1) / 8 @ v).transpose(1, 2).reshape(x.shape)


X = torch.zeros(3, H)
TEXT, KEYS = torch.zeros(3, TOKENS, H), torch.zeros(3, TOKENS, dtype=torch.bool)
ENCODER = {"d_model": H, "nhead": HEADS, "dim_feedforward": 2 * H, "dropout": 0.1, "batch_first": True}


def multihead():
    return Multihead(), ((X, torch.zeros(3, 2 * H)), {"c": torch.zeros(3, 3 * H)})


MODULES = {
    "ffn": lambda: (Ffn(), X), "gated": lambda: (Gated(), X), "multihead": multihead,
    "constants": lambda: (Constants(), TEXT), "learned": lambda: (Learned(), TEXT), "curved": lambda: (Curved(), TEXT),
    "mixed": lambda: (Mixed(), TEXT), "apart": lambda: (Apart(), X), "fused": lambda: (Fused(), X), "grouped": lambda: (Grouped(), TEXT),
    "masked": lambda: (Masked(), (X, torch.zeros(3, H, dtype=torch.int64))),
    "attended": lambda: (Attended(), (TEXT, KEYS)), "crossed": lambda: (Crossed(), (TEXT, KEYS)),
    "encoder": lambda: (nn.TransformerEncoderLayer(activation="gelu", **ENCODER), {"src": TEXT, "src_key_padding_mask": KEYS}),
    "pre_norm": lambda: (nn.TransformerEncoderLayer(norm_first=True, **ENCODER), TEXT),
}
if hasattr(nn, "RMSNorm"):
    MODULES["scaled"] = lambda: (Scaled(), (TEXT, KEYS))


def examples(exported, rows=5):
    drawn = []
    for entry in exported.block["inputs"]:
        shape = (rows, *entry["shape"])
        if entry.get("dtype", "float32") == "float32":
            drawn.append(torch.randn(shape))
        else:
            mask = torch.randint(0, 2, shape)
            mask[:, 0] = 0
            drawn.append(mask.to(getattr(torch, entry["dtype"])))
    return drawn


def call(module, name, inputs):
    """A module's outputs, as the block's names say where its inputs go."""
    if name == "multihead":
        return list(module(*inputs[:2], c=inputs[2]).values())
    if name == "fused":
        return list(module(*inputs).values())
    result = module(inputs[0], src_key_padding_mask=inputs[1]) if name == "encoder" else module(*inputs)
    return [result]


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Each module; and a server whose <name>.0 is a copy that does not learn, and <name>.1 one that does (adam)."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("exported")
    made, entries, blocks = {}, [], []
    for name, make in MODULES.items():
        module, inputs = make()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = expertd.export(module, inputs, name=f"own_{name}")
        assert module.training  # as it was
        made[name] = module.eval(), exported
        _, weights = exported.save(str(folder))
        blocks.append(exported.block)
        entries += [{"uid": f"{name}.{i}", "block": exported.name, "hidden_dim": H, "weights": weights, "max_batch_size": 64,
                     "optimizer": optimizer} for i, optimizer in enumerate(("none", "adam"))]
    with make_server(entries, blocks) as server:
        yield made, server


@pytest.mark.parametrize("name", list(MODULES))
def test_the_servers_expert_is_the_module(twins, name):
    module, exported = twins[0][name][0], twins[0][name][1]
    expert = expertd.RemoteExpert(f"{name}.0", twins[1].endpoint, timeout=PATIENCE)
    assert [field.name for field in expert.info.forward_schema] == [entry["name"] for entry in exported.block["inputs"]]
    inputs = examples(exported)
    ours, theirs = ([x.clone().requires_grad_(x.dtype.is_floating_point) for x in inputs] for _ in range(2))
    mine = expert(*ours)
    mine, other = mine if isinstance(mine, tuple) else [mine], call(module, name, theirs)
    assert len(mine) == len(other)
    total = other_total = 0
    for y, z in zip(mine, other):
        assert torch.allclose(y, z, atol=1e-4)
        weights = torch.randn_like(y)
        total, other_total = total + (y * weights).sum(), other_total + (z * weights).sum()
    total.backward()
    other_total.backward()
    for x, z in zip(ours, theirs):
        assert (x.grad is None) == (z.grad is None) and (x.grad is None or torch.allclose(x.grad, z.grad, atol=1e-3))


@pytest.mark.parametrize("name", list(MODULES))
def test_20_optimizer_steps_are_the_modules(twins, name):
    module, exported = copy.deepcopy(twins[0][name][0]), twins[0][name][1]
    expert, steps = expertd.RemoteExpert(f"{name}.1", twins[1].endpoint, timeout=PATIENCE), torch.optim.Adam(module.parameters())
    for _ in range(20):
        inputs = examples(exported, 8)
        mine = expert(*inputs)
        mine, other = mine if isinstance(mine, tuple) else [mine], call(module, name, inputs)
        weights = [torch.randn_like(z) for z in other]
        sum((y * w).sum() for y, w in zip(mine, weights)).backward()
        steps.zero_grad()
        sum((z * w).sum() for z, w in zip(other, weights)).backward()
        steps.step()
    inputs = examples(exported)
    mine = expert(*inputs)
    for y, z, before in zip(mine if isinstance(mine, tuple) else [mine], call(module, name, inputs), call(twins[0][name][0], name, inputs)):
        assert torch.allclose(y, z, atol=5e-3) and not torch.allclose(z, before, atol=5e-3)


def test_a_checkpoint_goes_back_into_the_module(twins, tmp_path):
    module, exported = twins[0]["crossed"]
    other = Crossed().eval()
    missing = other.load_state_dict(exported.state_dict(), strict=True)
    assert not missing.missing_keys
    x, mask = examples(exported)
    assert torch.equal(other(x, mask), module(x, mask))
    fused, kept = twins[0]["fused"]  # also what nothing reads
    again = Fused().eval()
    assert not again.load_state_dict(kept.state_dict(), strict=True).missing_keys
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), fused.parameters()))
    for name, kind in (("constants", Constants), ("learned", Learned)):  # buffers too, in their own shapes
        module_too, exported_too = twins[0][name]
        again = kind().eval()
        assert not again.load_state_dict(exported_too.state_dict(), strict=True).missing_keys
        assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in module_too.state_dict().items())
        (z,) = examples(exported_too)
        assert torch.allclose(evaluate(exported_too.block, exported_too.weights_of(module_too), [z])[0], module_too(z), atol=1e-5)
    expertd.save_tensors(str(tmp_path / "w"), exported.weights)
    assert all(torch.equal(exported.weights[name], tensor) for name, tensor in expertd.load_tensors(str(tmp_path / "w")).items())
    assert torch.allclose(evaluate(exported.block, exported.weights_of(other), [x, mask])[0], module(x, mask), atol=1e-5)


class Sub(nn.Module):
    def __init__(self, inner, function=None):
        super().__init__()
        self.inner, self.linear, self.function = inner, nn.Linear(H, H), function
        self.register_buffer("shift", torch.linspace(1, 2, H))
        self.norm, self.factor = nn.LayerNorm(H), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.inner(self.linear(x)) if self.function is None else self.function(self, x)


class Twice(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Mean(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize("module, path, reason", [
    (Sub(nn.BatchNorm1d(H)), "inner", "BatchNorm1d"), (Sub(nn.Sequential(nn.Linear(H, H), nn.Tanh())), "inner.1", "activations"),
    (Sub(nn.Sequential(nn.Sigmoid(), nn.Dropout(0.5), nn.Linear(H, H))), "inner.0", "activations"),
    (Sub(nn.Tanh(), lambda m, x: m.linear(2 * m.inner(m.linear(x)))), "inner", "activations"),
    (Sub(Twice()), "inner", "trace"),
    (Sub(nn.LayerNorm(H, elementwise_affine=False)), "inner", "a weight and a bias"), (Sub(Mean()), "inner", "mean"),
    (Sub(None, lambda m, x: m.linear(m.linear(x))), "linear", "used twice"),
    (Sub(None, lambda m, x: m.linear(x) + functional.relu(m.linear(x))), "linear", "twice"),
    (Sub(None, lambda m, x: torch.maximum(m.linear(x), m.shift)), "", "maximum"), (Sub(None, lambda m, x: m.linear(x)[:, ::2]), "", "slices"),
    (Sub(None, lambda m, x: m.linear(x)[:, 0]), "", "slices"), (Sub(None, lambda m, x: m.linear(x)[:1]), "", "last dimension"),
    (Sub(None, lambda m, x: m.linear(x[:, :H])[:, :3] + m.linear(x)[:, 3:6]), "linear", "twice"),
    (Sub(None, lambda m, x: torch.relu(x)[:, :3] + m.linear(x)[:, :3]), "", "a part of an input"),
    (Sub(None, lambda m, x: (x + m.linear(x))[:, :3]), "", "a part of the result of a layer of kind add"),
    (Sub(None, lambda m, x: (lambda y: y[:, :3] + y[:, 2:5])(m.linear(x))), "linear", "overlap"),
    (Sub(None, lambda m, x: (lambda y: {"a": y, "b": y[:, 2:5]})(m.linear(x))), "linear", "whole and in part"),
    (Sub(None, lambda m, x: m.linear(x) ** m.shift), "", "the buffer shift"), (Sub(None, lambda m, x: m.shift / m.linear(x)), "", "the buffer shift"),
    (Sub(None, lambda m, x: m.linear(x) + m.shift.add_(1)), "", "would not compute"), (Sub(None, lambda m, x: m.linear(x) @ m.linear.weight), "", "products"),
    (Sub(None, lambda m, x: m.linear(x) + torch.arange(3.0)[:, None]), "", "the same for all rows"),
    (Sub(None, lambda m, x: m.linear(x) * m.factor), "", "the parameter factor"), (Sub(None, lambda m, x: x / m.norm.weight), "", "the parameter norm"),
    (Sub(None, lambda m, x: m.linear(x) * m.norm.weight + m.norm.weight), "", "used twice"),
    (Sub(None, lambda m, x: x + m.norm(m.shift)), "norm", "constants"), (Sub(None, lambda m, x: torch.tanh(m.linear(x)) * 0.5), "", "activations"),
    (Sub(None, lambda m, x: m.linear(x).detach()), "", "detach"), (Sub(None, lambda m, x: x), "", "input"),
    (Sub(None, lambda m, x: m.linear(torch.ones(3, H))), "linear", "constants"),
    (nn.MultiheadAttention(H, HEADS, add_bias_kv=True, batch_first=True), "", ""),
    (Sub(nn.Conv1d(1, 1, 1)), "inner", "channels"), (Sub(nn.LSTM(H, H)), "inner", "LSTM"),
])
def test_what_the_server_has_no_layer_for_is_refused_with_its_path(module, path, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        expertd.export(module, torch.zeros(3, H))
    if isinstance(caught.value, expertd.ExportError):
        assert caught.value.path in path.split("|"), caught.value
        assert not isinstance(module, Sub) or caught.value.__str__().startswith(caught.value.path or "the module itself")


def test_dropout_is_left_out_with_a_warning_and_a_part_that_does_not_train_is_refused():
    with pytest.warns(UserWarning, match="drop"):
        assert len(expertd.export(Multihead(), multihead()[1]).block["layers"]) == 7
    frozen = Ffn()
    frozen.ffn.weight.requires_grad_(False)
    with pytest.raises(expertd.ExportError, match="ffn.weight"):
        expertd.export(frozen, X)
    assert len(expertd.export(frozen.requires_grad_(False), X).weights) == 6  # to serve


def test_inputs_are_checked_and_named():
    exported = expertd.export(Ffn().double(), X, input_names=["tokens"])
    assert [entry["name"] for entry in exported.block["inputs"]] == ["tokens"] and "tokens: float32[rows, 16]" in repr(exported)
    assert all(tensor.dtype == torch.float32 for tensor in exported.weights.values())
    for wrong in (torch.zeros(3, H, dtype=torch.int32), torch.tensor(1.0), [], "x"):
        with pytest.raises(ValueError):
            expertd.export(Ffn(), wrong)
    deep = nn.Sequential(*(nn.Linear(4, 4) for _ in range(65)))
    with pytest.raises(expertd.ExportError, match="65 layers"):
        expertd.export(deep, torch.zeros(1, 4))


def test_long_names_become_short_ones_and_go_back():
    module = nn.Linear(4, 4)
    for _ in range(9):
        module = nn.ModuleDict({"inside": module})

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = module

        def forward(self, x):
            inner = self.inside
            while isinstance(inner, nn.ModuleDict):
                inner = inner["inside"]
            return inner(x)
    deep = Deep()
    exported = expertd.export(deep, torch.zeros(1, 4))
    assert all(len(name) < 48 for name in exported.weights)
    deep.load_state_dict(exported.state_dict(), strict=True)


def test_registered_classes_are_hosted_each_expert_with_weights_of_its_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nimport expertd.hivemind as hivemind\n"
        "@hivemind.moe.register_expert_class('pytest_double', lambda batch, hid: torch.empty(batch, hid))\n"
        "class Double(torch.nn.Module):\n"
        "    def __init__(self, hid):\n"
        "        super().__init__()\n        self.inner = torch.nn.Linear(hid, 2 * hid)\n        self.outer = torch.nn.Linear(2 * hid, 10)\n"
        "    def forward(self, x):\n        return self.outer(torch.relu(self.inner(x)))\n")
    from expertd.hivemind.moe.server import Server
    options = {"expert_uids": ["double.0", "double.1"], "expert_cls": "pytest_double", "hidden_dim": H, "optim_cls": None, "seed": 3}
    try:
        outputs, x = [], torch.randn(4, H)
        for _ in range(2):
            with Server.create(start=True, custom_module_path=None if outputs else str(tmp_path / "mine.py"), **options) as server:
                experts = [expertd.RemoteExpert(uid, server.endpoint, timeout=PATIENCE) for uid in server.uids]
                outputs.append([expert(x) for expert in experts])
                assert experts[0].info.block == "pytest_double" and outputs[-1][0].shape == (4, 10)
                for rows in (1, 4):
                    z = torch.randn(rows, H, requires_grad=True)
                    experts[1](z).square().sum().backward()
                    assert z.grad.abs().sum() > 0
        assert not torch.allclose(outputs[0][0], outputs[0][1], atol=1e-3)
        assert torch.equal(outputs[0][0], outputs[1][0])  # of the same seed
        with pytest.raises(RuntimeError, match="pytest_double"):
            expertd.register_expert_class("pytest_double", None)(Ffn)
        with pytest.raises(RuntimeError, match="ffn"):
            expertd.register_expert_class("ffn", None)(Ffn)
        with pytest.raises(ValueError, match="not registered"):
            expertd.Server.create(num_experts=1, expert_cls=Ffn, start=False)
    finally:
        name_to_block.pop("pytest_double", None)
        name_to_input.pop("pytest_double", None)


def test_module_backends_are_hosted():
    from expertd.hivemind.moe.server import ModuleBackend, Server
    from expertd.hivemind.utils.tensor_descr import BatchTensorDescriptor
    modules = {"mine.0": Ffn().eval(), "mine.1": Ffn().eval(), "other.0": nn.Linear(H, 4)}
    backends = {uid: ModuleBackend(uid, module, optimizer=torch.optim.SGD(module.parameters(), lr=0.1) if uid == "mine.1" else None,
                                   args_schema=(BatchTensorDescriptor(H),), max_batch_size=64) for uid, module in modules.items()}
    assert backends["other.0"].outputs_schema[0].size == (None, 4)
    x = torch.randn(4, H)
    server = Server(None, backends)
    assert not server.ready and not server.ready.is_set()
    server.start()
    with server:
        assert server.ready.wait(PATIENCE) and server.ready.is_set()
        assert len(server.config["blocks"]) == 2
        for uid, module in modules.items():
            assert torch.allclose(expertd.RemoteExpert(uid, server.endpoint, timeout=PATIENCE)(x), module(x), atol=1e-5)
        learner = expertd.RemoteExpert("mine.1", server.endpoint, timeout=PATIENCE)
        learner(x).square().sum().backward()
        assert not torch.allclose(learner(x), modules["mine.1"](x), atol=1e-5)
    two_groups = torch.optim.SGD([{"params": [p]} for p in modules["other.0"].parameters()], lr=0.1)
    with pytest.raises(ValueError, match="groups"):
        ModuleBackend("other.0", modules["other.0"], optimizer=two_groups, args_schema=(BatchTensorDescriptor(H),))


def test_safetensors_that_lie_are_refused(tmp_path):
    expertd.save_tensors(str(tmp_path / "good"), {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(0, 4), "c": torch.ones(3, dtype=torch.bfloat16)})
    good = (tmp_path / "good").read_bytes()
    loaded = expertd.load_tensors(str(tmp_path / "good"))
    assert loaded["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and loaded["b"].shape == (0, 4) and loaded["c"].dtype == torch.bfloat16
    lies = [b"", good[:7], good[:20], good[:-1], b"\xff" * 16 + good, good.replace(b"[2,3]", b"[2,4]"), good.replace(b"[0,24]", b"[8,32]"),
            good.replace(b'"F32"', b'17   '), good.replace(b'"dtype":"F32"', b'"type" :"F32"'), good.replace(b"[2,3]", b"[-2]"[:4] + b" "), good.replace(b"{", b"[", 1)]
    for lie in lies:
        (tmp_path / "lie").write_bytes(lie)
        with pytest.raises(ValueError):
            expertd.load_tensors(str(tmp_path / "lie"))


def test_a_tensor_of_a_dtype_that_cannot_be_read_spoils_nothing_until_it_is_asked_for(tmp_path):
    path = str(tmp_path / "mixed")
    expertd.save_tensors(path, {"a": torch.arange(6.0), "b": torch.zeros(3, dtype=torch.int8), "c": torch.zeros(2, dtype=torch.float64)})
    good = (tmp_path / "mixed").read_bytes()
    for code in ("C64", "F4", "U64"):
        (tmp_path / "mixed").write_bytes(good.replace(b'"F64"', f'"{code}"'.ljust(5).encode()))
        loaded = expertd.load_tensors(path)
        assert set(loaded) == {"a", "b"} and torch.equal(loaded["a"], torch.arange(6.0)) and loaded.get("c") is None
        for tensors in (loaded, copy.deepcopy(loaded)):
            assert torch.equal(tensors["b"], torch.zeros(3, dtype=torch.int8))
            with pytest.raises(ValueError, match=f"mixed: c: tensors of dtype {code} cannot be read"):
                tensors["c"]
            with pytest.raises(KeyError):
                tensors["d"]
    # What it says of where that lies is checked all the same.
    (tmp_path / "mixed").write_bytes(good.replace(b'"F64"', b'"C64"')[:-1])
    with pytest.raises(ValueError, match="outside"):
        expertd.load_tensors(path)


def test_files_of_other_kinds_are_told_by_what_they_are(tmp_path):
    kinds = {"Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
             "index of a model in several files": b'{\n  "metadata": {},\n  "weight_map": {"a": "model-00001-of-00002.safetensors"}\n}',
             "JSON text": b'{"hidden_size": 64}', "zip archive": b"PK\3\4\x0a\0\0\0\0\0", "pickle": b"\x80\2}q\0X\1\0\0\0aq\1",
             "GGUF": b"GGUF\3\0\0\0\1\0\0\0", "its header would have": b"\xff" * 16}
    for kind, content in kinds.items():
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(ValueError, match=f"other: .*{kind}"):
            expertd.load_tensors(str(tmp_path / "other"))
    # A header of 123 bytes begins as JSON text does, one of 640 as a pickle.
    expertd.save_tensors(str(tmp_path / "good"), {"a": torch.ones(2)})
    good = (tmp_path / "good").read_bytes()
    for length in (123, 640):
        (tmp_path / "good").write_bytes(length.to_bytes(8, "little") + good[8:-8].rstrip().ljust(length) + good[-8:])
        assert expertd.load_tensors(str(tmp_path / "good"))["a"].tolist() == [1, 1]
