"""RemoteExpert against real servers: autograd, learning, dtypes, failures."""
import contextlib
import copy
import glob
import math
import os
import pickle
import signal
import threading

import pytest
import torch

import expertd
from conftest import PATIENCE, echo, ffn, make_server
from expertd import messages
from expertd.expert import RemoteExpert


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """A local module, and a server whose local.0 (no optimizer) and local.1 (adam) have its weights."""
    local = expertd.built_in.Feedforward(16)
    path = tmp_path_factory.mktemp("weights") / "ffn.safetensors"
    expertd.save_tensors(str(path), local.state_dict())
    with make_server([ffn("local.0", weights=str(path)), ffn("local.1", weights=str(path), optimizer="adam"),
                      ffn("local.2", weights=str(path), optimizer="sgd", learning_rate=0.1)]) as running:
        yield local, running


def remote(server, uid, **options):
    return RemoteExpert(uid, server.endpoint, timeout=PATIENCE, **options)


def test_forward_and_gradients_are_the_local_modules(twins):
    local, server = twins
    expert = remote(server, "local.0")
    x = torch.randn(5, 16)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = expert(ours), local(theirs)
    assert torch.allclose(y, z, atol=1e-5) and y.requires_grad
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    (z * weights).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-4)
    # A part of the batch gives the same rows.
    assert torch.allclose(expert(x[1:3]), z[1:3], atol=1e-5)


@pytest.mark.parametrize("uid, optimizer", [("local.1", lambda p: torch.optim.Adam(p)),
                                            ("local.2", lambda p: torch.optim.SGD(p, lr=0.1))])
def test_20_optimizer_steps_are_the_local_modules(twins, uid, optimizer):
    local, server = copy.deepcopy(twins[0]), twins[1]
    expert, steps = remote(server, uid), optimizer(local.parameters())
    for _ in range(20):
        x, target = torch.randn(8, 16), torch.randn(8, 16)
        torch.nn.functional.mse_loss(expert(x), target).backward()  # no input needs a gradient: it learns all the same
        steps.zero_grad()
        torch.nn.functional.mse_loss(local(x), target).backward()
        steps.step()
    x = torch.randn(8, 16)
    assert torch.allclose(expert(x), local(x), atol=2e-3)
    assert not torch.allclose(local(x), twins[0](x), atol=2e-3)
    assert expert.fetch_info().update_count == 20


def test_only_gradients_that_somebody_needs_are_asked_for(stand_in):
    def answer(request, frames):
        wanted = not request.requires_grad or request.requires_grad[0]
        return echo(request, frames) if wanted else (messages.server.ReplyHeader(version=1), [])
    server = stand_in(answer)
    expert, x = remote(server, "e.0"), torch.ones(2, 4)
    expert(x).sum().backward()
    needed = x.clone().requires_grad_()
    expert(needed).sum().backward()
    assert [list(r.requires_grad) for r in server.asked("BACKWARD")] == [[False], [True]]
    assert torch.equal(needed.grad, x) and x.grad is None
    # A server that does not know of it sends them all, and one that sends others is not believed.
    assert expertd.task.spread([x], [False], "e.0") == [None]
    assert expertd.task.spread([x], [False, True, False], "e.0") == [None, x, None]
    with pytest.raises(expertd.ExpertdError, match="1 gradients came for 3 inputs, of which 2 want one"):
        expertd.task.spread([x], [True, True, False], "e.0")


def test_a_step_is_the_same_whatever_gradients_are_wanted(tmp_path):
    x, grad, path = torch.randn(4, 16), torch.randn(4, 16), str(tmp_path / "ffn.safetensors")
    expertd.save_tensors(path, expertd.built_in.Feedforward(16).state_dict())
    learners = [ffn(f"learner.{i}", weights=path, optimizer="sgd", learning_rate=0.1) for i in range(2)]
    with make_server(learners) as running:
        client = expertd.Client(running.endpoint, timeout=PATIENCE)
        assert client.backward("learner.0", [x], [grad], requires_grad=[False]) == ()
        assert client.backward("learner.1", [x], [grad], requires_grad=[True])[0].shape == x.shape
        first, second = (client.forward(f"learner.{i}", [x])[0] for i in range(2))
        assert torch.allclose(first, second, atol=1e-5) and client.info("learner.0").update_count == 1
        with pytest.raises(expertd.InvalidArgument):
            client.backward("learner.0", [x], [grad], requires_grad=[True, True])


def test_nothing_is_learned_without_a_backward(twins):
    expert = remote(twins[1], "local.0")
    x = torch.randn(2, 16)
    with torch.no_grad():
        assert not expert(x).requires_grad
    with torch.inference_mode():
        expert(x)
    before = expert.fetch_info().update_count
    expert(x)
    assert expert.fetch_info().update_count == before


def test_gradients_agree_with_finite_differences(server):
    expert = remote(server, "ffn.0.0")
    x = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    assert expert(x).dtype == torch.float64  # computed in the schema's float32
    assert torch.autograd.gradcheck(expert, (x,), eps=1e-2, atol=2e-2, rtol=2e-2, nondet_tol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_dtypes_are_converted_there_and_back(server, dtype):
    expert = remote(server, "ffn.0.0")
    x = torch.randn(4, 16)
    low = x.to(dtype).requires_grad_()
    y = expert(low)
    assert y.dtype == dtype and torch.allclose(y.float(), expert(low.float()), atol=0.05)
    y.sum().backward()
    assert low.grad.dtype == dtype


def test_autocast_does_not_break_it(server):
    expert, gate = remote(server, "ffn.0.0"), torch.nn.Linear(16, 16)
    x = torch.randn(4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = expert(gate(x))
        loss = y.float().square().mean()
    loss.backward()
    assert y.dtype == torch.bfloat16 and gate.weight.grad is not None and gate.weight.grad.abs().sum() > 0


def test_more_leading_dimensions_are_rows(server):
    expert = remote(server, "ffn.1.1")
    x = torch.randn(2, 3, 5, 16, requires_grad=True)
    y = expert(x)
    assert y.shape == x.shape and torch.allclose(y[1, 2], expert(x[1, 2]), atol=1e-5)
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_inputs_go_by_name_or_position(server):
    expert, x = remote(server, "ffn.0.0"), torch.randn(2, 16)
    (name,) = expert.info.keyword_names
    assert torch.equal(expert(**{name: x}), expert(x))
    for args, kwargs, sentence in (((), {}, "missing"), ((x, x), {}, "2 were given"), ((x,), {"y": x}, "'y'"),
                                   ((x,), {name: x}, name), (([1.0],), {}, "tensors")):
        with pytest.raises(TypeError, match=sentence):
            expert(*args, **kwargs)


def test_wrong_inputs_are_refused_before_anything_is_sent(server, client):
    expert = remote(server, "ffn.0.0")
    expert(torch.randn(1, 16))
    before = client.stats()["frontend.requests.forward"]
    with pytest.raises(ValueError, match="11") as caught:
        expert(torch.randn(3, 11))
    assert "float32[rows, 16]" in str(caught.value)
    with pytest.raises(expertd.InvalidArgument, match="int64"):
        expert(torch.zeros(3, 16, dtype=torch.int64))
    with pytest.raises(expertd.InvalidArgument, match="no rows"):
        expert(torch.zeros(0, 16))
    with pytest.raises(expertd.InvalidArgument, match="shape"):
        expert(torch.zeros(16))
    assert client.stats()["frontend.requests.forward"] == before
    assert torch.isfinite(expert(torch.randn(3, 16))).all()


def test_an_unknown_expert_is_not_found(server):
    with pytest.raises(expertd.NotFound):
        remote(server, "ffn.9.9")(torch.randn(1, 16))
    with pytest.raises(expertd.NotFound):
        RemoteExpert("ffn.9.9", server.dht, retry_for=0.1)(torch.randn(1, 16))
    with pytest.raises(expertd.InvalidArgument):
        RemoteExpert("ffn", server.endpoint)
    with pytest.raises(TypeError):
        RemoteExpert("ffn.0.0", None)


def test_a_batch_whose_gradients_are_not_finite_changes_nothing(server):
    expert, x = remote(server, "learner.0"), torch.randn(2, 16)
    before = expert(x).detach()
    with pytest.raises(expertd.Aborted):
        (expert(x) * math.inf).sum().backward()
    assert torch.equal(expert(x), before)


def test_it_is_found_by_the_dht_and_can_be_pickled(server):
    expert = RemoteExpert("ffn.2.2", server.dht, timeout=PATIENCE)
    x = torch.randn(2, 16)
    assert expert.peer_id == server.endpoint
    assert torch.equal(pickle.loads(pickle.dumps(expert))(x), expert(x))
    assert torch.equal(copy.deepcopy(expert)(x), remote(server, "ffn.2.2")(x))
    earlier = RemoteExpert.__new__(RemoteExpert)  # pickled by a version without what __init__() does not set
    earlier.__setstate__({name: value for name, value in vars(expert).items() if name != "_client"})
    assert torch.equal(earlier(x), expert(x))
    assert "ffn.2.2" in repr(expert) and "float32[rows, 16]" in repr(expert)
    assert list(expert.parameters()) == []


def test_a_backward_survives_the_servers_end_if_it_comes_back(tmp_path):
    with make_server([ffn("learner.0", optimizer="sgd", learning_rate=0.05)], checkpoint={"dir": str(tmp_path)}) as server:
        expert = remote(server, "learner.0", retry_for=PATIENCE)
        x = torch.randn(2, 16, requires_grad=True)
        y = expert(x)
        server.shutdown()
        restarted = threading.Thread(target=server.run_in_background)
        restarted.start()
        y.sum().backward()
        restarted.join()
        assert x.grad is not None and expert.fetch_info().update_count == 1


def test_a_server_that_is_killed_between_forward_and_backward_is_an_error():
    server = make_server([ffn("learner.0")])
    expert = remote(server, "learner.0", retry_for=0.5)
    x = torch.randn(2, 16, requires_grad=True)
    y = expert(x)
    for pid in server.pids.values():
        with contextlib.suppress(ProcessLookupError):  # of one's end its supervisor ends the others
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(expertd.Unavailable):
        y.sum().backward()
    assert x.grad is None
    server.shutdown()
    assert not glob.glob(f"/dev/shm/expertd.{server.config['server']['name']}*")


def test_the_next_server_answers_when_one_is_gone(server, stand_in):
    first, second = stand_in(echo), stand_in(echo)
    first.stop()
    first.stop = lambda: None
    task = expertd.task.Task("e.0", [first.endpoint, second.endpoint], [torch.ones(2, 4)], None, timeout=PATIENCE,
                             retry_for=PATIENCE, patient=False)
    assert torch.equal(task.start().outputs()[0], torch.ones(2, 4)) and task.endpoint == second.endpoint


def test_a_backward_that_may_be_applied_does_not_go_to_another_server(stand_in):
    from conftest import refusal
    first, second = stand_in(lambda request, frames: refusal(14)), stand_in(echo)
    x = torch.ones(2, 4)

    def ask(grads):
        task = expertd.task.Task("e.0", [first.endpoint, second.endpoint], [x], grads, timeout=PATIENCE, retry_for=5.0, patient=False)
        return task.start().outputs()
    assert torch.equal(ask(None)[0], x)
    with pytest.raises(expertd.Unavailable) as caught:
        ask([x])
    assert not caught.value.not_applied and len(second.requests) == 1
    assert len({r.request_id for r in first.requests[1:]}) == 1 and len(first.requests) > 2


def test_the_servers_blocks_are_there_as_modules(tmp_path):
    hidden, modules = 32, {name: cls(32).eval() for name, cls in expertd.built_in.classes.items()}
    entries = []
    for name, module in modules.items():
        entry = {"uid": f"{name}.0", "block": name, "hidden_dim": hidden, "max_batch_size": 8, "optimizer": "none"}
        if list(module.parameters()):
            expertd.save_tensors(str(tmp_path / name), module.state_dict())
            entry["weights"] = str(tmp_path / name)
        entries.append(entry)
    with make_server(entries) as running:
        for name, module in modules.items():
            inputs = [torch.randn(x.shape) if x.dtype == torch.float32 else x for x in (
                lambda sample: sample if isinstance(sample, tuple) else (sample,))(expertd.built_in.samples[name](2, hidden))]
            assert torch.allclose(remote(running, f"{name}.0")(*inputs), module(*inputs), atol=1e-4), name
