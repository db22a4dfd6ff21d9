"""Mixtures, switches, the beam searcher and gathering, against real servers and stand-ins."""
import itertools
import math
import random

import pytest
import torch

import expertd
from conftest import PATIENCE, echo, ffn, make_server, refusal
from expertd import MoEBeamSearcher, RemoteExpert, RemoteMixtureOfExperts, RemoteSwitchMixtureOfExperts, messages
from expertd.gather import Settings, Target, call_many

GRID = (3, 3)


def mixture(server, kind=RemoteMixtureOfExperts, **options):
    options = {"in_features": 16, "grid_size": GRID, "dht": server.dht, "uid_prefix": "ffn.", "k_best": 3,
               "forward_timeout": PATIENCE, "backward_timeout": PATIENCE, **options}
    return kind(**options)


def by_hand(moe, server, x):
    """The same from single calls: the k best of the grid by exhaustive search, softmax, weighted sum."""
    scores = moe.proj(x)
    rows = []
    for row, mine in zip(x, scores):
        best = sorted(itertools.product(range(3), range(3)), key=lambda c: -(mine[c[0]] + mine[3 + c[1]]).item())[:moe.k_best]
        weights = torch.softmax(torch.stack([mine[i] + mine[3 + j] for i, j in best]), 0)
        outputs = [RemoteExpert(f"ffn.{i}.{j}", server.endpoint, timeout=PATIENCE)(row[None])[0] for i, j in best]
        rows.append(sum(w * y for w, y in zip(weights, outputs)))
    return torch.stack(rows)


def test_a_mixture_is_what_single_calls_make_of_it_with_its_gradients(server):
    moe = mixture(server)
    x = torch.randn(6, 16)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = moe(ours)
    z = by_hand(moe, server, theirs)
    assert torch.allclose(y, z, atol=1e-5)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    gate, moe.proj.weight.grad = moe.proj.weight.grad, None
    (z * weights).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-4)
    assert torch.allclose(gate, moe.proj.weight.grad, atol=1e-4) and gate.abs().sum() > 0


def test_a_mixtures_gradients_agree_with_finite_differences(server):
    moe = mixture(server, k_best=9).double()  # all experts: the choice is no step
    x = torch.randn(2, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(moe, (x,), eps=1e-2, atol=3e-2, rtol=3e-2, nondet_tol=1e-5)


def test_each_server_gets_one_message_or_each_expert_where_slow_ones_are_left_out(server, client):
    def asked():
        stats = client.stats()
        return [stats[name] for name in ("frontend.requests.forward", "frontend.requests.backward", "frontend.parts")]
    moe, x = mixture(server, k_best=2), torch.randn(40, 16)
    expected = moe(x)
    before = asked()
    y = moe(x)
    y.sum().backward()
    forwards, backwards, parts = (now - then for now, then in zip(asked(), before))
    assert forwards == backwards == 1 and 4 <= parts <= 18 and torch.allclose(y, expected, atol=1e-5)
    moe(torch.randn(300, 16))  # more than max_batch_size 64 of some: several messages
    moe.settings = moe.settings._replace(timeout_after_k_min=PATIENCE)
    before = asked()
    assert torch.allclose(moe(x), expected, atol=1e-5)
    forwards, _, parts = (now - then for now, then in zip(asked(), before))
    assert 2 <= forwards <= 9 and parts == 0


def test_gradients_are_asked_for_where_they_are_needed(stand_in):
    def answer(request, frames):
        wanted = [i for i, want in enumerate(request.requires_grad) if want] or ([] if request.requires_grad else [0])
        return messages.server.ReplyHeader(version=1, tensors=[request.tensors[i] for i in wanted], parts=[{} for _ in request.parts]), \
            [frames[i] for i in wanted]
    one = stand_in(answer)
    targets = [[Target("e.0", (one.endpoint,)), Target("e.1", (one.endpoint,))]] * 2
    shapes = [(torch.float32, (4,))]
    for needed in ((True, False), (False, True), (False, False)):
        x, y = (torch.randn(2, 4, requires_grad=need) for need in needed)
        _, out = call_many(targets, Settings(k_min=0, forward_timeout=PATIENCE, backward_timeout=PATIENCE, backward_k_min=0), shapes, x, y)
        out.sum().backward()  # also where the gate alone trains: the experts learn
        assert list(one.asked("BACKWARD")[-1].requires_grad) == list(needed)


def test_samples_of_several_rows_choose_once(server):
    moe = mixture(server)
    x = torch.randn(3, 4, 5, 16, requires_grad=True)
    y = moe(x)
    assert y.shape == x.shape
    scores = moe.proj(x.mean(dim=(1, 2)))
    found = moe.beam_search.search(scores, 3)[1]
    weights = torch.softmax(torch.tensor([f.score for f in found]), 0)
    expected = sum(w * RemoteExpert(f.uid, server.endpoint, timeout=PATIENCE)(x[1]) for w, f in zip(weights, found))
    assert torch.allclose(y[1], expected, atol=1e-5)
    y.sum().backward()
    assert x.grad.shape == x.shape and x.grad.abs().sum() > 0


def test_expert_scores_are_sums_with_gradients_to_every_dimension(server):
    moe = mixture(server)
    parts = [torch.randn(3, 3, requires_grad=True) for _ in GRID]
    uids = [["ffn.0.1", "ffn.2.2"], ["ffn.1.0"], []]
    scores = moe.compute_expert_scores(parts, uids)
    assert scores.shape == (3, 2) and scores[0, 1] == parts[0][0, 2] + parts[1][0, 2]
    assert scores[1, 1] == -math.inf and (scores[2] == -math.inf).all()
    scores[0].sum().backward()
    assert all(part.grad is not None and part.grad[0].abs().sum() > 0 for part in parts)


def test_a_switch_adds_the_input_and_its_balancing_loss_has_a_gradient(server):
    moe = mixture(server, RemoteSwitchMixtureOfExperts, k_best=1, jitter_eps=0.0)
    x = torch.randn(8, 16, requires_grad=True)
    y, loss = moe(x)
    found = moe.beam_search.search(moe.proj(x), 1)[2][0]
    parts = [torch.softmax(p, -1) for p in moe.proj(x[2]).split(GRID)]
    i, j = map(int, found.uid.split(".")[1:])
    expected = parts[0][i] * parts[1][j] * RemoteExpert(found.uid, server.endpoint, timeout=PATIENCE)(x[2:3])[0] + x[2]
    assert torch.allclose(y[2], expected, atol=1e-5)
    # After a step, utilization is no longer even, so that the loss pulls somewhere.
    (gradient,) = torch.autograd.grad(loss, moe.proj.weight, retain_graph=True)
    assert gradient.abs().sum() > 0 and 1.0 < loss.item() < 9.0
    y.sum().backward()
    assert x.grad.abs().sum() > 0
    assert torch.allclose(torch.stack([u.sum() for u in moe.grid_utilization.split(GRID)]), torch.ones(2))


def test_a_switchs_utilization_loss_and_dropout_follow_their_formulas(server):
    moe = mixture(server, RemoteSwitchMixtureOfExperts, k_best=2, utilization_alpha=0.75, jitter_eps=0.0)
    x = torch.randn(12, 16)
    before, counts = moe.grid_utilization.clone(), torch.zeros(6)
    found = moe.beam_search.search(moe.proj(x), 2)
    for row in found:
        for one in row:
            i, j = map(int, one.uid.split(".")[1:])
            counts[i] += 1
            counts[3 + j] += 1
    _, loss = moe(x)
    assert torch.allclose(moe.grid_utilization, 0.75 * before + 0.25 * counts / 24)
    parts = [torch.softmax(part, -1).mean(0) for part in moe.proj(x).split(GRID, -1)]
    expected = sum((part * used).mean() * 9 for part, used in zip(parts, moe.grid_utilization.split(GRID)))
    assert torch.allclose(loss, expected, atol=1e-6)
    scores = moe.proj(x)
    for kept, least in ((0.0, 1), (0.5, 1), (1.0, 3)):
        moe.grid_dropout = kept
        left = [(~part).sum(1) for part in moe._dropped(scores).split(GRID, 1)]
        assert all(int(part.min()) >= least and (kept or int(part.max()) == 1) for part in left)
    moe.jitter_eps = 0.3
    share = moe._gate_input(torch.ones(1000))
    assert 0.7 <= share.min() < 0.8 and 1.2 < share.max() <= 1.3 and torch.equal(moe.eval()._gate_input(x), x)


def test_a_switch_neither_changes_its_input_nor_counts_outside_training(server):
    moe = mixture(server, RemoteSwitchMixtureOfExperts, jitter_eps=0.3, grid_dropout=0.5)
    x = torch.randn(4, 16)
    before, used = x.clone(), moe.grid_utilization.clone()
    moe.eval()
    first, _ = moe(x)
    assert torch.equal(moe(x)[0], first) and torch.equal(moe.grid_utilization, used)
    moe.train()
    moe(x)[0].sum().backward()
    assert torch.equal(x, before) and not torch.equal(moe.grid_utilization, used)
    assert torch.isfinite(moe.proj.weight.grad).all()


def test_where_nobody_answers_a_switch_gives_the_input_back(stand_in):
    silent = stand_in(lambda request, frames: None)
    targets = [[Target("e.0", (silent.endpoint,))]] * 2
    x = torch.randn(2, 4, requires_grad=True)
    settings = Settings(k_min=0, backward_k_min=0, forward_timeout=0.1, backward_timeout=0.1, allow_zero_outputs=True)
    for _ in range(3):
        mask, y = call_many(targets, settings, [(torch.float32, (4,))], x)
        assert not mask.any() and torch.equal(y, torch.zeros(2, 1, 4))
        y.sum().backward()
    assert torch.equal(x.grad, torch.zeros(2, 4))


def test_no_softmax_of_nothing(server):
    moe = mixture(server, allow_zero_outputs=True, k_min=0, forward_timeout=1e-4)
    moe.info  # so that the time is the calls' own
    y = moe(torch.randn(4, 16))
    assert torch.isfinite(y).all()


def test_many_calls_give_a_mask_outputs_and_gradients(server):
    def target(name):
        return Target(f"ffn.0.{name}", (server.endpoint,))
    a, b, c, lost = target(0), target(1), target(2), target(77)
    targets = [[a, b, c], [c, lost], [b, lost, a], []]
    x = torch.randn(4, 16, requires_grad=True)
    settings = Settings(k_min=1, forward_timeout=PATIENCE, backward_timeout=PATIENCE, allow_zero_outputs=True)
    mask, y = call_many(targets, settings, [(torch.float32, (16,))], x)
    assert mask.tolist() == [[True] * 3, [True, False, False], [True, False, True], [False] * 3]
    z = x.detach().clone().requires_grad_()
    total = 0
    weights = torch.randn_like(y)
    for i, row in enumerate(targets):
        for j, one in enumerate(row):
            if one is not lost:
                out = RemoteExpert(one.uid, server.endpoint, timeout=PATIENCE)(z[i:i + 1])[0]
                assert torch.allclose(y[i, j], out, atol=1e-5)
                total = total + (out * weights[i, j]).sum()
    (y * weights).sum().backward()
    total.backward()
    assert torch.allclose(x.grad, z.grad, atol=1e-4)
    with pytest.raises(expertd.Unavailable, match="1 of 4 rows"):
        call_many(targets, settings._replace(allow_zero_outputs=False), [(torch.float32, (16,))], x)
    with pytest.raises(TimeoutError, match="k_min"):
        call_many([[lost]], settings, [(torch.float32, (16,))], x[:1])


@pytest.mark.parametrize("k_min", [0, 1])
def test_a_slow_expert_is_waited_for_no_longer_than_agreed(stand_in, k_min):
    quick, slow = stand_in(echo), stand_in(lambda request, frames: None)
    targets = [[Target("e.0", (quick.endpoint,)), Target("e.1", (slow.endpoint,))]]
    settings = Settings(k_min=k_min, forward_timeout=PATIENCE, timeout_after_k_min=0.05 if k_min else 10)
    x = torch.randn(1, 4)
    mask, y = call_many(targets, settings, [(torch.float32, (4,))], x)  # a hang otherwise
    assert mask.tolist() == [[True, False]] and torch.equal(y[0, 0], x[0])


def test_an_experts_failure_in_the_backward_is_no_gradient(stand_in):
    def answer(request, frames):
        return echo(request, frames) if len(request.tensors) == 1 else refusal(13)
    good, bad = stand_in(echo), stand_in(answer)
    targets = [[Target("e.0", (good.endpoint,)), Target("e.1", (bad.endpoint,))]]
    x = torch.randn(1, 4, requires_grad=True)
    mask, y = call_many(targets, Settings(forward_timeout=PATIENCE, backward_timeout=PATIENCE), [(torch.float32, (4,))], x)
    assert mask.all()
    y.sum().backward()
    assert torch.equal(x.grad, x.detach())  # a stand-in's gradient is its first input
    with pytest.raises(TimeoutError, match="backward_k_min"):
        _, y = call_many([targets[0][1:]], Settings(forward_timeout=PATIENCE), [(torch.float32, (4,))], x)
        y.sum().backward()


def test_anomalies_are_the_callers_error_or_that_of_an_expert_which_is_left_out(server, stand_in):
    moe = mixture(server, detect_anomalies=True)
    x = torch.randn(4, 16)
    with pytest.raises(ValueError, match="input"):
        moe(torch.where(torch.arange(64).reshape(4, 16) == 5, torch.tensor(math.nan), x))
    with pytest.raises(ValueError, match="gradient"):
        (moe(x) * math.inf).sum().backward()
    assert torch.isfinite(moe(x)).all()

    def nan(request, frames):
        header, _ = echo(request, frames)
        return header, [torch.full((1, 4), math.nan).numpy().tobytes()]
    good, bad = stand_in(echo), stand_in(nan)
    mask, y = call_many([[Target("e.0", (good.endpoint,)), Target("e.1", (bad.endpoint,))]],
                        Settings(detect_anomalies=True, forward_timeout=PATIENCE), [(torch.float32, (4,))], torch.ones(1, 4))
    assert mask.tolist() == [[True, False]] and torch.isfinite(y).all()


def test_arguments_that_make_no_sense_are_refused(server):
    for wrong in ({"k_min": 4}, {"k_best": 0, "k_min": 0}, {"grid_size": ()}, {"backward_k_min": -1}):
        with pytest.raises(ValueError):
            mixture(server, **wrong)
    with pytest.raises(ValueError, match="16"):
        mixture(server)(torch.randn(4, 15))
    with pytest.raises(expertd.Unavailable, match="no live expert of nobody."):
        mixture(server, uid_prefix="nobody.")(torch.randn(4, 16))


def test_beam_search_is_an_exhaustive_search():
    choice = random.Random(0)
    grid = list(itertools.product(range(5, 15), range(10, 20), range(15, 25)))
    uids = [f"nop.{a}.{b}.{c}" for a, b, c in choice.sample(grid, 1000)]
    entries = [{"uid": uid, "block": "nop", "hidden_dim": 4, "max_batch_size": 1, "queue_tasks": 1, "optimizer": "none"}
               for uid in uids]
    with make_server(entries) as server:
        searcher = MoEBeamSearcher(server.dht, "nop.", (32, 32, 32))
        for _ in range(25):
            scores = [torch.randn(32).tolist() for _ in range(3)]
            found = searcher.find_best_experts(scores, 4)

            def score(uid, scores=scores):
                return sum(scores[d][int(c)] for d, c in enumerate(uid.split(".")[1:]))
            best = sorted(map(score, uids), reverse=True)[:4]
            assert all(isinstance(one, RemoteExpert) for one in found)
            assert torch.allclose(torch.tensor([score(one.uid) for one in found]), torch.tensor(best), atol=1e-5)
        batch = [torch.randn(32, 32) for _ in range(3)]
        assert [len(row) for row in searcher.batch_find_best_experts(batch, 4)] == [4] * 32


def test_the_searcher_answers_as_hivemind_does(server):
    searcher = MoEBeamSearcher(server.dht, "ffn.", GRID)
    beam = searcher.get_initial_beam([0.1, 0.3, 0.2], 2)
    assert [(round(score, 4), prefix) for score, prefix, _ in beam] == [(0.3, "ffn.1."), (0.2, "ffn.2.")]
    assert beam[0][2] == {0: "ffn.1.0", 1: "ffn.1.1", 2: "ffn.1.2"}
    flat = MoEBeamSearcher(server.dht, "learner.", (9,))
    assert [e.uid for e in flat.find_best_experts([[float(i) for i in range(9)]], 3)] == ["learner.1", "learner.0"]
    assert flat.get_initial_beam([float(i) for i in range(9)], 1)[0][1:] == ("learner.1.", {-1: "learner.1"})
    assert searcher.get_active_successors(["ffn.0.", "ffn.7.", "e."]) == {
        "ffn.0.": {0: "ffn.0.0", 1: "ffn.0.1", 2: "ffn.0.2"}, "ffn.7.": {}, "e.": {}}
    assert list(searcher.get_active_successors(["ffn.0."], grid_size=1)["ffn.0."]) == [0]
    for wrong in ("ffn", "ffn.01.", ".", "", "ffn.."):
        with pytest.raises(AssertionError):
            searcher.get_active_successors([wrong])
    assert searcher.find_best_experts([[0.0] * 3, [0.0] * 3], 2, return_future=True).result()[0].uid == "ffn.0.0"
    with pytest.raises(ValueError):
        searcher.find_best_experts([[0.0] * 3], 2)


def _digits():
    """Two classes that a linear layer alone does not separate, of 16 features."""
    torch.manual_seed(1)
    x = torch.randn(256, 16)
    return x, (x[:, 0] * x[:, 1] > 0).long()


@pytest.mark.parametrize("kind", [RemoteMixtureOfExperts, RemoteSwitchMixtureOfExperts])
def test_a_mixture_learns_what_its_gate_alone_cannot(kind):
    x, y = _digits()
    entries = [ffn(f"expert.{i}", optimizer="adam", learning_rate=0.005, max_batch_size=512, seed=i) for i in range(3)]
    with make_server(entries) as server:
        options = {"k_best": 2} if kind is RemoteMixtureOfExperts else {"k_best": 1, "k_min": 1, "jitter_eps": 0.0}
        moe = mixture(server, kind, grid_size=(3,), uid_prefix="expert.", **options)
        head = torch.nn.Linear(16, 2)
        steps = torch.optim.Adam([*moe.parameters(), *head.parameters()], lr=0.01)
        for step in range(150):
            out = moe(x)
            out, balance = out if isinstance(out, tuple) else (out, 0.0)
            loss = torch.nn.functional.cross_entropy(head(out), y) + 0.01 * balance
            steps.zero_grad()
            loss.backward()
            steps.step()
            accuracy = (head(out).argmax(1) == y).float().mean().item()
            if accuracy >= 0.9:
                break
        assert accuracy >= 0.9, f"{accuracy} after {step} steps"
        if kind is RemoteSwitchMixtureOfExperts:
            assert moe.grid_utilization.min() > 0.1
