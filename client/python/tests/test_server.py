"""Servers and DHT nodes in the background."""
import functools
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import expertd
from conftest import PATIENCE, HERE
from expertd.server import Server, _optimizer, _sample

SMALL = {"hidden_dim": 16, "max_batch_size": 64, "optim_cls": "sgd"}


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may end between the two
        return False


def test_two_servers_and_a_client_meet_in_one_network():
    with expertd.background_server(expert_uids=["ffn.0.0"], update_period=1, expiration=60, **SMALL) as first:
        with expertd.background_server(expert_uids=["ffn.0.1"], initial_peers=first.addrs, update_period=1, expiration=60,
                                       **SMALL) as second:
            dht = expertd.DHT(expertd.DHT(second.addrs).bootstrap_addresses(), start=True)
            end = time.monotonic() + PATIENCE
            while any(e is None for e in expertd.get_experts(dht, ["ffn.0.0", "ffn.0.1"])) and time.monotonic() < end:
                time.sleep(0.1)
            one, other, nobody = expertd.get_experts(dht, ["ffn.0.0", "ffn.0.1", "ffn.1.1"])
            assert nobody is None and one.peer_id == first.peer_id and other.peer_id == second.peer_id
            assert torch.isfinite(one(torch.randn(2, 16)) + other(torch.randn(2, 16))).all()
            assert dht.is_alive() and "background" in repr(dht)
            # Uids are drawn among those that nobody hosts.
            drawn = Server.create(num_experts=2, expert_pattern="ffn.[0:1].[0:4]", initial_peers=[dht.endpoint], start=False, **SMALL)
            assert sorted(drawn.uids) == ["ffn.0.2", "ffn.0.3"]
            dht.shutdown()
            assert not dht.is_alive()


def test_checkpoints_are_written_at_the_end_and_found_again(tmp_path):
    x = torch.randn(4, 16)
    with Server.create(num_experts=2, checkpoint_dir=str(tmp_path), start=True, **SMALL) as server:
        assert server.uids == ["expert.0", "expert.1"]
        expert = expertd.RemoteExpert("expert.1", server.endpoint, timeout=PATIENCE)
        for _ in range(3):
            expert(x).square().sum().backward()
        server.client.checkpoint("expert.0")
        learned = expert(x).detach()
    with Server.create(num_experts=2, checkpoint_dir=str(tmp_path), start=True, **SMALL) as server:
        expert = expertd.RemoteExpert("expert.1", server.endpoint, timeout=PATIENCE)
        assert torch.allclose(expert(x), learned, atol=1e-6) and expert.info.update_count == 3
    with pytest.raises(ValueError, match="2 experts"):
        Server.create(num_experts=1, checkpoint_dir=str(tmp_path), start=False)


def test_training_that_cannot_be_saved_is_told(tmp_path):
    folder = tmp_path / "checkpoints"
    server = Server.create(num_experts=1, checkpoint_dir=str(folder), start=True, **SMALL)
    expert = expertd.RemoteExpert("expert.0", server.endpoint, timeout=PATIENCE)
    expert(torch.randn(2, 16)).square().sum().backward()
    shutil.rmtree(folder)
    folder.write_text("in the way")
    with pytest.warns(RuntimeWarning, match="lost: 1 updates"):
        server.shutdown()


def test_a_schedule_is_followed():
    with Server.create(expert_uids=["e.0"], scheduler="linear", num_warmup_steps=2, num_training_steps=4, start=True,
                       hidden_dim=16, optim_cls=functools.partial(torch.optim.SGD, lr=1.0)) as server:
        expert, x = expertd.RemoteExpert("e.0", server.endpoint, timeout=PATIENCE), torch.randn(2, 16)
        moved = []
        for _ in range(6):
            before = expert(x).detach()
            expert(x).square().sum().backward()
            moved.append(not torch.equal(expert(x), before))
        assert moved == [False, True, True, True, False, False]  # rates 0, 1/2, 1, 1/2, 0, 0


def test_a_wrong_configuration_is_an_error_with_the_servers_sentence():
    with pytest.raises(expertd.Unavailable, match="nonsense"):
        Server.create(num_experts=1, expert_cls="nonsense", start=True)
    for wrong, sentence in (({}, "either"), ({"num_experts": 1, "expert_uids": ["e.0"]}, "either"),
                            ({"expert_uids": ["e"]}, "no uid"), ({"num_experts": 1, "scheduler": "zigzag"}, "linear"),
                            ({"num_experts": 1, "optim_cls": torch.optim.RMSprop}, "adam, adamw and sgd"),
                            ({"num_experts": 1, "optim_cls": functools.partial(torch.optim.Adam, maximize=True)}, "maximize")):
        with pytest.raises(ValueError, match=sentence):
            Server.create(start=False, **wrong)
    with pytest.raises(FileNotFoundError, match="expertd-frontend"):
        Server.create(num_experts=1, start=True, bin_dir="/nonexistent")


def test_what_trains_nothing_needs_no_schedule():
    with pytest.warns(UserWarning, match="no effect"), expertd.background_server(
            expert_uids=["still.0"], hidden_dim=8, optim_cls=None, scheduler="linear", num_training_steps=9, clip_grad_norm=1.0) as peer:
        assert expertd.Client(peer.peer_id).info("still.0").optimizer == "none"


def test_optimizers_are_translated():
    assert _optimizer(torch.optim.Adam) == {"optimizer": "adam", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999,
                                            "epsilon": 1e-8}
    assert _optimizer(functools.partial(torch.optim.SGD, lr=0.05, momentum=0.5)) == {
        "optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.5}
    assert _optimizer(functools.partial(torch.optim.AdamW, amsgrad=True)) == {
        "optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8,
        "amsgrad": True}
    assert _optimizer(None) == {"optimizer": "none"}
    drawn = _sample("ffn.[0:4].[2:6]", 100)
    assert len(set(drawn)) == 16 and all(uid.split(".")[2] in "2345" for uid in drawn)


def test_nothing_outlives_the_program_even_if_it_is_killed(tmp_path):
    program = ("import sys; sys.path.insert(0, sys.argv[1])\n"
               "from expertd.server import Server\n"
               "s = Server.create(num_experts=1, hidden_dim=16, start=True)\n"
               "print(*s.pids.values(), s._group.folder, flush=True)\nimport time; time.sleep(1000)\n")
    process = subprocess.Popen([sys.executable, "-c", program, os.path.dirname(HERE)], stdout=subprocess.PIPE, text=True)
    *pids, folder = process.stdout.readline().split()
    assert len(pids) == 3 and all(alive(pid) for pid in pids)
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + PATIENCE
    while (any(alive(pid) for pid in pids) or os.path.exists(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids) and not os.path.exists(folder)
    process.stdout.close()


def test_the_table_of_a_server(server):
    table = expertd.top(server.endpoint, "ffn.")
    assert len(table.rows) == 9 and "ffn.0.0" in repr(table) and server.endpoint in repr(table)
    assert repr(table).splitlines()[1].split() == list(table.columns)
    assert "11" in repr(server) or "12" in repr(server)
    assert "connected" in repr(server.client)


def test_a_long_start_shows_a_bar(capsys):
    pytest.importorskip("tqdm")
    from expertd.progress import Progress
    with Progress("experts alive", 3, True) as progress:
        progress._bar.delay = 0
        for done in (1, 3, 2):
            progress.reach(done)
        assert progress._bar.n == 3
        progress._bar.refresh()
    assert "experts alive" in capsys.readouterr().err
    with Progress("nothing", 3, False) as progress:
        progress.reach(2)
    assert capsys.readouterr().err == ""
