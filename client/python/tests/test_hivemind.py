"""expertd.hivemind: hivemind's import paths, and what its own tests assert, written anew."""
import asyncio
import functools
import importlib
import inspect
import time

import pytest
import torch

import expertd
import expertd.hivemind as hivemind
from conftest import PATIENCE, in_threads

NAMES = {
    "": "DHT RemoteExpert RemoteMixtureOfExperts RemoteSwitchMixtureOfExperts Server background_server get_dht_time",
    "dht": "DHT", "dht.node": "DHTNode",
    "moe": "register_expert_class RemoteExpert RemoteMixtureOfExperts Server",
    "moe.client": "RemoteMixtureOfExperts RemoteSwitchMixtureOfExperts RemoteExpert",
    "moe.client.expert": "RemoteExpert create_remote_experts batch_create_remote_experts",
    "moe.client.moe": "DUMMY RemoteMixtureOfExperts _RemoteCallMany",
    "moe.client.switch_moe": "RemoteSwitchMixtureOfExperts", "moe.client.beam_search": "MoEBeamSearcher",
    "moe.client.remote_expert_worker": "RemoteExpertWorker",
    "moe.expert_uid": "ExpertInfo is_valid_uid is_valid_prefix split_uid UID_DELIMITER",
    "moe.server": "ModuleBackend Server background_server declare_experts get_experts",
    "moe.server.layers": "name_to_block register_expert_class add_custom_models_from_file",
    "moe.server.module_backend": "ModuleBackend", "moe.server.checkpoints": "load_experts store_experts",
    "p2p": "P2P PeerInfo PeerID", "p2p.p2p_daemon_bindings.control": "P2PHandlerError",
    "utils.limits": "increase_file_limit", "utils.logging": "get_logger use_hivemind_log_handler", "utils.networking": "LOCALHOST",
    "utils": "MPFuture get_dht_time get_logger", "utils.tensor_descr": "BatchTensorDescriptor",
}


def test_every_import_path_resolves():
    for path, names in NAMES.items():
        module = importlib.import_module("expertd.hivemind" + ("." + path if path else ""))
        for name in names.split():
            assert hasattr(module, name), f"{path}.{name}"


ARGUMENTS = {  # and their defaults; ... without one
    "RemoteMixtureOfExperts": dict(in_features=..., grid_size=..., dht=..., uid_prefix=..., k_best=..., k_min=1, forward_timeout=None,
                                   timeout_after_k_min=None, backward_k_min=1, backward_timeout=None, detect_anomalies=False,
                                   allow_zero_outputs=False),
    "RemoteSwitchMixtureOfExperts": dict(grid_size=..., utilization_alpha=0.9, grid_dropout=1.0, jitter_eps=1e-2, k_best=1, k_min=0,
                                         backward_k_min=0, allow_zero_outputs=True),
    "MoEBeamSearcher": dict(dht=..., uid_prefix=..., grid_size=..., num_workers=None, negative_caching=True, cache_expiration=300),
}
METHODS = {"get_initial_beam": "scores beam_size return_future", "get_active_successors": "prefixes grid_size return_future",
           "find_best_experts": "grid_scores beam_size return_future", "batch_find_best_experts": "batch_grid_scores beam_size return_future"}


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_constructors_have_hiveminds_arguments_and_defaults(name):
    given = inspect.signature(getattr(expertd, name)).parameters
    for argument, default in ARGUMENTS[name].items():
        assert given[argument].default == (inspect.Parameter.empty if default is ... else default), argument
        assert name == "MoEBeamSearcher" or given[argument].kind == inspect.Parameter.KEYWORD_ONLY
    assert inspect.Parameter.VAR_KEYWORD in {one.kind for one in given.values()}  # for the parent, the searcher, the experts
    if name == "MoEBeamSearcher":
        assert list(given)[:6] == list(ARGUMENTS[name])
        for method, names in METHODS.items():
            found = inspect.signature(getattr(expertd.MoEBeamSearcher, method)).parameters
            assert list(found)[1:] == names.split() and found["return_future"].default is False
    else:
        dht = expertd.DHT("tcp://127.0.0.1:1")
        moe = getattr(expertd, name)(in_features=8, grid_size=(4, 5), dht=dht, uid_prefix="ffn.", k_best=2, num_workers=3, cache_expiration=1)
        assert (moe.proj.in_features, moe.proj.out_features) == (8, 9) and moe.beam_search.uid_prefix == "ffn."


def test_optimizers_are_given_as_hivemind_takes_them():
    wanted = {"optimizer": "adam", "learning_rate": 0.02, "beta1": 0.5, "weight_decay": 0.0}
    for given in (lambda parameters: torch.optim.Adam(parameters, lr=0.02, betas=(0.5, 0.999)),
                  functools.partial(torch.optim.Adam, lr=0.02, betas=(0.5, 0.999)),
                  functools.partial(lambda parameters, lr: torch.optim.Adam(parameters, lr, betas=(0.5, 0.999)), lr=0.02)):
        (entry,) = hivemind.Server.create(num_experts=1, optim_cls=given, start=False).config["experts"]
        assert {key: entry.get(key, 0.0) for key in wanted} == wanted
    for refused in (lambda parameters: torch.optim.RMSprop(parameters), torch.optim.RMSprop, lambda parameters: None,
                    lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)):
        with pytest.raises(ValueError, match="the server"):
            hivemind.Server.create(num_experts=1, optim_cls=refused, start=False)


def test_experts_are_made_of_lists_and_of_lists_of_lists():
    from expertd.hivemind.moe.client.expert import batch_create_remote_experts, create_remote_experts
    info = hivemind.moe.ExpertInfo("ffn.3", "tcp://127.0.0.1:1")
    for future in (False, True):
        one, many = create_remote_experts([info, None], return_future=future), batch_create_remote_experts([[info], [], [None]], return_future=future)
        one, many = (one.result(), many.result()) if future else (one, many)
        assert (one[0].uid, one[0].peer_id, one[1]) == (*info, None) and [len(row) for row in many] == [1, 0, 1] and many[2][0] is None


def test_a_hivemind_program_runs_with_another_import():
    with hivemind.moe.server.background_server(
            expert_uids=["expert.0", "expert.1"], expert_cls="ffn", num_handlers=1, hidden_dim=16,
            optim_cls=None, device="cpu") as peer:
        dht = hivemind.DHT(initial_peers=peer.addrs, start=True)
        first, missing, second = hivemind.moe.server.get_experts(dht, ["expert.0", "expert.7", "expert.1"])
        assert missing is None and first.peer_id == peer.peer_id and isinstance(second, hivemind.RemoteExpert)
        infos = [hivemind.moe.expert_uid.ExpertInfo("expert.0", peer.peer_id),
                 hivemind.moe.expert_uid.ExpertInfo("expert.9", peer.peer_id)]
        real, fake = hivemind.moe.client.expert.create_remote_experts(infos, dht=dht)
        x = torch.randn(3, 16, requires_grad=True)
        y = real(x)
        assert y.shape == (3, 16) and torch.allclose(y[1:2], real(x[1:2]), rtol=0, atol=1e-5)
        y.norm().backward()
        assert x.grad.norm() > 0 and "forward_schema" in dir(real.info) and real.info["keyword_names"]
        with pytest.raises(Exception) as caught:
            real(torch.randn(3, 11))
        assert "11" in repr(caught.value)
        with pytest.raises(hivemind.p2p.P2PHandlerError):
            fake.timeout = fake.retry_for = PATIENCE
            fake(torch.randn(3, 16))
        assert torch.allclose(real(x), y, atol=1e-5)  # alive, and the same afterwards
        from expertd.hivemind.moe.client.moe import DUMMY, _RemoteCallMany
        mask, out = _RemoteCallMany.apply(DUMMY, [[real], [real, second], []], 1, 1, None, PATIENCE, PATIENCE, False, True,
                                          real.info, x)
        assert mask.tolist() == [[True, False], [True, True], [False, False]]
        assert torch.allclose(out[1, 1], second(x)[1], atol=1e-5)
        dht.shutdown()


def test_what_is_not_there_says_where_it_is_instead():
    from expertd.hivemind.dht.node import DHTNode
    from expertd.hivemind.moe.server.checkpoints import load_experts, store_experts
    for absent, clue in ((lambda: load_experts({}, "d"), "start"),
                         (lambda: store_experts({}, "d"), "checkpoint"), (lambda: asyncio.run(DHTNode.create()), "start=True"),
                         (lambda: hivemind.DHT("tcp://127.0.0.1:1").store("k", "v"), "publishes")):
        with pytest.raises(NotImplementedError, match=clue):
            absent()
    with pytest.raises(expertd.Unimplemented) as refused:  # a NotImplementedError, as the others are
        hivemind.declare_experts(None, ["ffn.0"])
    assert str(refused.value).startswith("UNIMPLEMENTED: experts are published by")
    with pytest.warns(UserWarning, match="use_relay"):
        hivemind.DHT("tcp://127.0.0.1:1", use_relay=True)


def test_uids():
    from expertd.hivemind.moe.expert_uid import is_valid_prefix, is_valid_uid, split_uid
    for uid in ("expert.1", "expert.0", "expert.0.0.1", "expert.1.0.1", "expert.1.2.3.4.5.6", "ffn.1.2", "123.4", "ffn_1.9",
                "\u043c\u043e\u0434\u0435\u043b\u044c.4", "a b.3", "e.10", "e.99.100"):
        assert is_valid_uid(uid) and is_valid_prefix(uid + "."), uid
    for uid in ("expert", "expert.", "expert.1.", ".1", "", ".", "..", "e..1", "e.1..2", "e.01", "e.1.00", "e.-1", "e.1.x", "e.x",
                "e.1 ", "e.1\n", "e.\u0661", "e.+1", "e.1.2.", "e.1,2", "e. 1"):
        assert not is_valid_uid(uid), uid
    for prefix in ("e", "e.1", "", ".", "e..", "e.01.", "e.1.\n", ".e."):
        assert not is_valid_prefix(prefix), prefix
    assert split_uid("ffn.4.17") == ("ffn.4.", 17) and split_uid("ffn.4.17.") == ("ffn.4.", 17)


def test_coroutines_run_at_the_same_time():
    from expertd.hivemind.moe.client.remote_expert_worker import RemoteExpertWorker
    together, done = [0, 0], asyncio.sleep

    async def one():
        together[0] += 1
        together[1] = max(together)
        while together[1] < 40:  # all have begun before any ends
            await done(0.01)
        return 1
    results = []

    def work(_):
        futures = [RemoteExpertWorker.run_coroutine(one(), return_future=True) for _ in range(10)]
        results.extend(f.result(timeout=PATIENCE) for f in futures)
    in_threads(4, work)
    assert results == [1] * 40


def test_a_tensors_description():
    descr = hivemind.utils.tensor_descr.BatchTensorDescriptor.from_tensor(torch.zeros(3, 5, 7, dtype=torch.float16))
    assert descr.size == (None, 5, 7) and descr.make_zeros(2).shape == (2, 5, 7) and descr.make_zeros(2).dtype == torch.float16
    assert abs(hivemind.get_dht_time() - time.time()) < 60


def test_deterministic_dropout_and_masks():
    with hivemind.moe.server.background_server(expert_uids=["drop.0"], expert_cls="det_dropout", hidden_dim=16, optim_cls=None) as peer:
        expert = hivemind.RemoteExpert(hivemind.moe.ExpertInfo("drop.0", peer.peer_id))
        x, mask = torch.randn(4, 16, requires_grad=True), torch.randint(0, 2, (4, 16))
        first, second = expert(x, mask), expert(x, **{expert.info.keyword_names[1]: mask})
        assert torch.allclose(first, second, atol=1e-5)
        (one,), (two,) = (torch.autograd.grad(y.sum(), x) for y in (first, second))
        assert torch.allclose(one, two, atol=1e-5) and (one[mask == 0] == 0).all() and one.abs().sum() > 0
        with pytest.raises(ValueError, match="int64"):
            expert(x, mask.float())


def test_a_transformer_takes_a_mask_of_bools():
    with hivemind.moe.server.background_server(expert_uids=["t.0"], expert_cls="transformer", hidden_dim=32, max_batch_size=8,
                                               optim_cls=torch.optim.Adam) as peer:
        expert = hivemind.RemoteExpert(hivemind.moe.ExpertInfo("t.0", peer.peer_id), timeout=PATIENCE)
        x, mask = torch.randn(2, 128, 32, requires_grad=True), torch.zeros(2, 128, dtype=torch.bool)
        mask[:, 100:] = True
        y = expert(x, mask)
        other = x.detach().clone()
        other[:, 100:] = 0.0  # masked keys matter to nobody but themselves
        assert y.shape == x.shape and torch.allclose(expert(other, mask)[:, :100], y[:, :100], atol=1e-4)
        y[:, :100].square().sum().backward()
        assert x.grad[:, :100].abs().sum() > 0


def test_no_experts_in_time():
    with hivemind.moe.server.background_server(expert_uids=["expert.0", "expert.1"], expert_cls="nop_delay", hidden_dim=16,
                                               optim_cls=None) as peer:
        dht = hivemind.DHT(peer.addrs, start=True)
        moe = hivemind.RemoteSwitchMixtureOfExperts(in_features=16, grid_size=(2,), dht=dht, uid_prefix="expert.", forward_timeout=0.1,
                                                    backward_timeout=0.1, allow_zero_outputs=True)
        for _ in range(3):
            x = torch.randn(2, 16, requires_grad=True)
            y, loss = moe(x)
            (y.sum() + loss).backward()
            assert torch.equal(y, x) and torch.equal(x.grad, torch.ones_like(x))
