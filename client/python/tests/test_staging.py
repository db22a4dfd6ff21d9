"""Tensors of a GPU. With one, it is tried; without, a stand-in whose copies are made as late as a GPU's may be."""
import pytest
import torch

import expertd
from conftest import PATIENCE, echo
from expertd import staging


class OnGpu(torch.Tensor):
    """Of the CPU, and says otherwise."""
    is_cpu, is_cuda = False, True

    @property
    def device(self):
        return torch.device("cuda", 0)


class Pinned(torch.Tensor):
    """Pinned memory into which what is copied comes when it is waited for."""
    def copy_(self, source, non_blocking=False):
        if non_blocking:
            PENDING.append(lambda: torch.Tensor.copy_(self, source.as_subclass(torch.Tensor)))
            return self
        return super().copy_(source)


class Event:
    def synchronize(self):
        WAITED.append(len(PENDING))
        while PENDING:
            PENDING.pop(0)()


PENDING, WAITED = [], []


@pytest.fixture
def late(monkeypatch):
    PENDING.clear()
    WAITED.clear()
    monkeypatch.setattr(staging, "_pinned", lambda like: torch.full(tuple(like.shape), 77, dtype=like.dtype).as_subclass(Pinned))
    monkeypatch.setattr(staging, "_mark", lambda device: Event())


def test_copies_are_begun_together_and_waited_for_before_the_bytes_are_read(stand_in, late):
    one = stand_in(echo)
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    client = expertd.Client(one.endpoint, timeout=PATIENCE)
    for codec in (None, "float16"):
        client.codec = expertd.codecs.codec_number(codec)
        (back,) = client.backward("e.0", [x.as_subclass(OnGpu)], [y.as_subclass(OnGpu)])
        assert torch.allclose(back, x, atol=1e-2)
    assert WAITED == [2, 2]
    task = expertd.task.Task("e.0", [one.endpoint], [x.as_subclass(OnGpu)], None, timeout=PATIENCE, retry_for=0, patient=False)
    assert WAITED == [2, 2, 1] and all(type(tensor) is not OnGpu for tensor in task.tensors)  # here, not in the thread that sends it
    assert torch.equal(task.start().outputs()[0], x)
    (there, cpu) = staging.to_host([x.as_subclass(OnGpu), y])
    assert torch.equal(there, x) and cpu is y


def test_each_gradient_goes_to_where_its_tensor_was():
    x, y = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, device="meta", requires_grad=True)
    there, _ = staging.move([x, y], torch.device("meta"))
    grads = staging._Move.backward(there.grad_fn, torch.ones(3, 4), torch.ones(3, 4))
    assert [grad.device.type for grad in grads[1:]] == ["cpu", "meta"]


def test_what_moves_has_its_gradient_on_the_other_side():
    x = torch.randn(2, 3, requires_grad=True)
    assert staging.move([x], torch.device("cpu"))[0] is x
    there, = staging._Move.apply(torch.device("meta"), x)
    assert there.device.type == "meta"
    number = torch.arange(3)
    moved = staging._Move.apply(torch.device("meta"), x, number)
    assert moved[0].requires_grad and not moved[1].requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, or a torch without CUDA")
def test_experts_take_and_give_cuda_tensors_also_of_another_stream(server):
    expert = expertd.RemoteExpert("ffn.0.0", server.endpoint, timeout=PATIENCE)
    moe = expertd.RemoteMixtureOfExperts(in_features=16, grid_size=(3, 3), dht=server.dht, uid_prefix="ffn.", k_best=3)
    torch.manual_seed(0)
    x = torch.randn(48, 16)
    for module in (expert, moe):
        ours, theirs = x.clone().requires_grad_(), x.cuda().requires_grad_()
        expected = module(ours)
        expected.square().sum().backward()
        module.cuda()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            late = theirs + 0 * torch.randn(4096, 4096, device="cuda").matmul(torch.randn(4096, 4096, device="cuda")).sum()
            y = module(late)
            y.square().sum().backward()
        stream.synchronize()
        assert y.device.type == "cuda" and torch.allclose(y.cpu(), expected, atol=1e-4)
        assert torch.allclose(theirs.grad.cpu(), ours.grad, atol=1e-3)
        module.cpu()
    large = torch.randn(1024, 1024, device="cuda")
    nop = expertd.RemoteExpert("nop.0", server.endpoint, timeout=PATIENCE)
    for _ in range(8):  # memory of the way there is used again
        assert torch.equal(nop(large), large)
        large = large + 1
