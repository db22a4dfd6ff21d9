"""What hivemind's own tests assert of programs that train, and is in no other file here: training, searches of a large
grid, large and empty tensors, checkpoints, many nodes. Those that are skipped there because they freeze, too."""
import functools
import itertools
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

import expertd
import expertd.hivemind as hivemind
from conftest import PATIENCE, ROOT, ffn, make_server


def digits(count):
    """Images of zeros and ones [count, 64], and which they are."""
    rows = []
    with open(os.path.join(ROOT, "examples", "data", "digits.csv"), encoding="utf-8") as text:
        for line in text:
            if line[:1].isdigit() and float(line.rsplit(",", 1)[1]) < 2:
                rows.append([float(value) for value in line.split(",")])
    table = torch.tensor(rows[:count])
    return table[:, :64] / 16, table[:, 64].long()


def trains(model, parameters, steps, batch, extra=lambda: 0.0):
    """The best accuracy within so many steps of SGD; stops at 0.9."""
    x, labels = digits(256)
    optimizer, best = torch.optim.SGD(parameters, lr=0.05), 0.0
    for _ in range(steps):
        chosen = torch.randint(0, len(x), (batch,))
        logits = model(x[chosen])
        loss = torch.nn.functional.cross_entropy(logits, labels[chosen]) + extra()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            best = max(best, float((model(x).argmax(1) == labels).float().mean()))
        if best >= 0.9:
            break
    return best


@pytest.fixture(scope="module")
def trainers():
    entries = [ffn(f"expert.{i}", hidden_dim=64, optimizer="sgd", learning_rate=0.05, clip_norm=1.0, max_batch_size=512, seed=i)
               for i in range(5)]
    with make_server(entries) as server:
        yield server


def test_two_experts_in_sequence_learn(trainers):
    experts = [hivemind.RemoteExpert(hivemind.moe.ExpertInfo(f"expert.{i}", trainers.endpoint), timeout=PATIENCE) for i in range(2)]
    torch.manual_seed(0)
    model = torch.nn.Sequential(*experts, torch.nn.Linear(64, 2))
    assert trains(model, model.parameters(), 100, 64) >= 0.9
    assert all(expert.fetch_info().update_count > 0 for expert in experts)


def test_a_mixture_learns(trainers):
    torch.manual_seed(0)
    moe = hivemind.RemoteMixtureOfExperts(in_features=64, grid_size=(2,), dht=trainers.dht, uid_prefix="expert.", k_best=2,
                                          forward_timeout=PATIENCE, backward_timeout=PATIENCE)
    model = torch.nn.Sequential(moe, torch.nn.Linear(64, 2))
    assert trains(model, model.parameters(), 100, 32) >= 0.9


def test_a_switch_learns_and_uses_all_its_experts(trainers):
    torch.manual_seed(0)
    moe = hivemind.RemoteSwitchMixtureOfExperts(in_features=64, grid_size=(5,), dht=trainers.dht, uid_prefix="expert.", jitter_eps=0,
                                                k_best=1, k_min=1, forward_timeout=PATIENCE, backward_timeout=PATIENCE)
    head, losses = torch.nn.Linear(64, 2), []

    def model(x):
        y, balance = moe(x)
        losses[:] = [balance]
        return head(y)
    assert trains(model, [*moe.parameters(), *head.parameters()], 100, 64, lambda: 0.01 * losses[0]) >= 0.9
    assert moe.grid_utilization.min() > 0.1


def test_a_mixture_on_a_grid_of_three_dimensions_goes_forward_and_back():
    choice = random.Random(0)
    uids = [".".join(["ffn", *map(str, c)]) for c in choice.sample(list(itertools.product(range(3), repeat=3)), 10)]
    with make_server([ffn(uid, optimizer="adam") for uid in uids]) as server:
        moe = hivemind.RemoteMixtureOfExperts(in_features=16, grid_size=(4, 4, 4), dht=server.dht, uid_prefix="ffn.", k_best=3,
                                              forward_timeout=PATIENCE, backward_timeout=PATIENCE)
        for _ in range(3):
            x = torch.randn(10, 16, requires_grad=True)
            y = moe(x)
            y.sum().backward()
            assert y.shape == x.shape and torch.isfinite(y).all() and x.grad.abs().sum() > 0
        assert {field.name for field in moe.info.forward_schema} == {"input"}
        assert sum(server.client.info(uid).update_count for uid in uids) >= 3


def test_large_tensors_and_empty_ones():
    entry = {"uid": "nop.0", "block": "nop", "hidden_dim": 4096, "max_batch_size": 1024, "optimizer": "none"}
    with make_server([entry]) as server:
        client, x = expertd.Client(server.endpoint, timeout=PATIENCE), torch.randn(1024, 4096)
        assert torch.equal(client.forward("nop.0", [x])[0], x)  # 16 MiB
        assert torch.equal(client.backward("nop.0", [x], [2 * x])[0], 2 * x)
        for wrong in ([], [torch.empty(0, 4096)], [torch.empty(3, 0)], [x, x, x]):
            with pytest.raises(expertd.InvalidArgument):
                client.forward("nop.0", wrong)
            with pytest.raises(expertd.InvalidArgument):
                client.backward("nop.0", wrong, [])
        with pytest.raises(expertd.NotFound):
            client.info("nop.9")
        assert torch.equal(client.forward("nop.0", [x[:1]])[0], x[:1]) and client.info("nop.0").uid == "nop.0"


def test_what_was_learned_after_the_last_checkpoint_is_gone_and_the_schedule_is_where_it_was(tmp_path):
    options = {"expert_uids": ["e.0"], "hidden_dim": 16, "optim_cls": functools.partial(torch.optim.SGD, lr=1.0), "scheduler": "linear",
               "num_warmup_steps": 2, "num_training_steps": 4, "checkpoint_dir": str(tmp_path), "checkpoint_interval": 86400.0, "start": True}
    x = torch.randn(2, 16)
    server = expertd.Server.create(**options)
    try:
        expert = expertd.RemoteExpert("e.0", server.endpoint, timeout=PATIENCE)
        outputs = []
        for _ in range(4):
            expert(x).square().sum().backward()
            outputs.append(expert(x).detach())
            if len(outputs) == 2:
                server.client.checkpoint("e.0")
        files = os.listdir(tmp_path / "e.0")
        assert len([file for file in files if file.endswith(".safetensors")]) == 1
        os.kill(server.pids["expertd-runtime"], signal.SIGKILL)  # the others end with it
    finally:
        server.shutdown()
    with expertd.Server.create(**options) as server:
        expert = expertd.RemoteExpert("e.0", server.endpoint, timeout=PATIENCE)
        assert expert.info.update_count == 2 and torch.allclose(expert(x), outputs[1], atol=1e-6)
        for expected in outputs[2:]:  # the rates are 1 and 1/2 again
            expert(x).square().sum().backward()
            assert torch.allclose(expert(x), expected, atol=1e-5)
        expert(x).square().sum().backward()  # and then 0
        assert torch.allclose(expert(x), outputs[3], atol=1e-5) and expert.fetch_info().update_count == 5


def test_hiveminds_checkpoints_go_on_here(tmp_path):
    local = expertd.built_in.Feedforward(16)
    optimizer = torch.optim.Adam(local.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        local(x).square().sum().backward()
        optimizer.step()
    x = torch.randn(4, 16)
    for _ in range(3):
        step()
    torch.save({"module": local.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint_last.pt")
    subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "scripts", "convert-state-dict"), str(tmp_path / "checkpoint_last.pt"),
                    str(tmp_path / "e.safetensors")], check=True, capture_output=True)
    with make_server([ffn("e.0", optimizer="adam", learning_rate=1e-2, weights=str(tmp_path / "e.safetensors"))]) as server:
        expert = expertd.RemoteExpert("e.0", server.endpoint, timeout=PATIENCE)
        assert expert.info.update_count == 3 and torch.allclose(expert(x), local(x), atol=1e-5)
        expert(x).square().sum().backward()
        step()
        assert torch.allclose(expert(x), local(x), atol=1e-3)  # with Adam's moments as they were
        assert set(expertd.load_tensors(str(tmp_path / "e.safetensors"))) >= set(local.state_dict())


def test_ten_nodes_find_what_one_server_has_also_when_two_are_gone_and_what_was_not_there_before(tmp_path):
    first = expertd.DHT(start=True, identity_file=str(tmp_path / "identity"))
    nodes = [first]
    try:
        nodes += [expertd.DHT(first.bootstrap_addresses(), start=True) for _ in range(8)]
        searcher = expertd.MoEBeamSearcher(nodes[-1], "expert.", (10, 10))
        assert searcher.get_initial_beam([0.0] * 10, 4) == [] and searcher.get_active_successors(["expert.3."]) == {"expert.3.": {}}
        uids = [f"expert.{i}.{j}" for i in range(5) for j in range(10)]
        entries = [{"uid": uid, "block": "nop", "hidden_dim": 4, "max_batch_size": 1, "optimizer": "none"} for uid in uids]
        with make_server(entries, dht={"bootstrap": first.bootstrap_addresses()}) as server:
            def found(dht):
                return expertd.get_experts(dht, [*uids, "expert.9.9"])
            end = time.monotonic() + PATIENCE
            while None in found(nodes[-1])[:-1] and time.monotonic() < end:
                time.sleep(0.1)
            experts = found(nodes[-1])
            assert experts[-1] is None and all(expert.peer_id == server.endpoint for expert in experts[:-1])
            # What was not there is not remembered as missing.
            assert [prefix for _, prefix, _ in searcher.get_initial_beam([float(-i) for i in range(10)], 2)] == ["expert.0.", "expert.1."]
            assert len(searcher.get_active_successors(["expert.3."])["expert.3."]) == 10
            for gone in (nodes[1], nodes[2]):
                gone.shutdown()
            assert None not in found(nodes[4])[:-1]
        name = first.peer_id
        first.shutdown()
        again = expertd.DHT(start=True, identity_file=str(tmp_path / "identity"))
        nodes.append(again)
        assert again.peer_id == name
    finally:
        for node in nodes:
            node.shutdown()


@pytest.mark.parametrize("program, options, least", [("train_digits.py", ["--epochs", "10"], 80), ("mixture.py", ["--steps", "40"], 40)])
def test_the_examples_run(program, options, least):
    done = subprocess.run([sys.executable, os.path.join(ROOT, "examples", program), *options], capture_output=True, text=True, timeout=4 * PATIENCE)
    assert done.returncode == 0, done.stderr
    shares = [float(line.rsplit(", ", 1)[1].split(" %")[0]) for line in done.stdout.splitlines() if "% of the test digits" in line]
    assert len(shares) >= 2 and shares[-1] >= least, done.stdout
