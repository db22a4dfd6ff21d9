"""What else PyTorch does with modules: DDP, torch.compile."""
import os

import torch
import torch.distributed
import torch.multiprocessing

import expertd
from conftest import PATIENCE


class Model(torch.nn.Module):
    def __init__(self, endpoint):
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = torch.nn.Linear(8, 16), torch.nn.Linear(16, 2)
        self.expert = expertd.RemoteExpert("ffn.0.0", endpoint, timeout=PATIENCE)

    def forward(self, x):
        return self.after(torch.relu(self.expert(torch.relu(self.before(x)))))


def _rank(rank, endpoint, store, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(Model(endpoint))
    steps = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(rank + 1)
    for _ in range(3):
        loss = model(torch.randn(4, 8)).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
    torch.save([p.detach() for p in model.parameters()], f"{results}/{rank}")
    torch.distributed.destroy_process_group()


def test_ddp_with_two_ranks_keeps_them_alike(server, tmp_path):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(_rank, args=(server.endpoint, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank)) for rank in range(2))
    start = [p.detach() for p in Model(server.endpoint).parameters()]
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert not any(torch.equal(a, b) for a, b in zip(first, start))


if hasattr(torch, "compile"):  # from 2.0 on
    def test_torch_compile_leaves_the_call_alone(server, monkeypatch):
        model, x = Model(server.endpoint), torch.randn(4, 8)
        plain = model(x)
        traced, package = [], os.path.dirname(expertd.__file__)
        from torch._dynamo import convert_frame
        frames = getattr(convert_frame, "ConvertFrame", None)  # from 2.2 on
        if frames is not None:
            look = frames.__call__
            def looked(self, frame, *args, **kwargs):
                traced.append(frame.f_code.co_filename)
                return look(self, frame, *args, **kwargs)
            monkeypatch.setattr(frames, "__call__", looked)
        compiled = torch.compile(model, backend="eager")(x)
        assert bool(traced) == (frames is not None)
        assert not [file for file in traced if file.startswith(package) and file != expertd.compiling.__file__]
        assert torch.allclose(plain, compiled, atol=1e-5)
        plain.sum().backward()
        gradient = model.before.weight.grad.clone()
        model.zero_grad()
        compiled.sum().backward()
        assert torch.allclose(gradient, model.before.weight.grad, atol=1e-5) and gradient.abs().sum() > 0
