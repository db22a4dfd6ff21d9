"""hivemind's MoEBeamSearcher: the best live experts of a grid by their coordinates' scores. The search is the
expertd-dht's, and exact: it is that of an exhaustive search over the live experts."""
from __future__ import annotations

import itertools
import math
from concurrent.futures import Future
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch

from .dht import DHT, Found
from .errors import InvalidArgument
from .expert import RemoteExpert
from .uid import is_valid_prefix

__all__ = ["MoEBeamSearcher"]


class MoEBeamSearcher:
    """Experts of `uid_prefix` ("ffn.") on a grid of the given sizes, found by `dht`. `expert_options` go to the
    RemoteExperts. num_workers, negative_caching and cache_expiration are for hivemind's search, and have no meaning
    here: the expertd-dht listens to what it has looked up."""

    def __init__(self, dht: DHT, uid_prefix: str, grid_size: Sequence[int], num_workers: Optional[int] = None,
                 negative_caching: bool = True, cache_expiration: float = 300, timeout: Optional[float] = None,
                 **expert_options: Any):
        if not uid_prefix.endswith("."):
            uid_prefix += "."
        assert is_valid_prefix(uid_prefix), f"{uid_prefix!r} is no prefix of uids, such as ffn."
        if not grid_size or any(size < 1 for size in grid_size):
            raise InvalidArgument(f"a grid of sizes {list(grid_size)} has no experts")
        self.dht, self.uid_prefix, self.grid_size = dht, uid_prefix, tuple(int(size) for size in grid_size)
        self.timeout, self.expert_options = timeout, expert_options

    def __repr__(self) -> str:
        return f"MoEBeamSearcher({self.uid_prefix} on {'x'.join(map(str, self.grid_size))} by {self.dht!r})"

    def search(self, scores: torch.Tensor, beam_size: int) -> List[List[Found]]:
        """scores: [rows, sum(grid_size)]; for each row up to beam_size live experts, the best first."""
        return self.dht.beam_search(self.uid_prefix, self.grid_size, scores, beam_size, timeout=self.timeout)

    def find_best_experts(self, grid_scores: Sequence[Sequence[float]], beam_size: int, return_future: bool = False) -> Any:
        """grid_scores: for each dimension its coordinates' scores. Up to beam_size RemoteExperts, the best first."""
        def find() -> List[RemoteExpert]:
            row = [float(score) for scores in grid_scores for score in scores]
            self._check([len(scores) for scores in grid_scores])
            return self._experts(self.search(torch.tensor([row]), beam_size)[0])
        return _answer(find, return_future)

    def batch_find_best_experts(self, batch_grid_scores: Sequence[Any], beam_size: int, return_future: bool = False) -> Any:
        """batch_grid_scores: for each dimension a matrix [rows, size]. For each row a list as of find_best_experts."""
        def find() -> List[List[RemoteExpert]]:
            parts = [torch.as_tensor(scores, dtype=torch.float32) for scores in batch_grid_scores]
            self._check([part.shape[-1] for part in parts])
            return [self._experts(row) for row in self.search(torch.cat(parts, dim=1), beam_size)]
        return _answer(find, return_future)

    def get_initial_beam(self, scores: Sequence[float], beam_size: int, return_future: bool = False) -> Any:
        """[(score, "ffn.i.", {j: uid of ffn.i.j})] of the best coordinates of the first dimension behind which live experts
        are; of one dimension [(score, "ffn.i", {-1: uid})]."""
        def find() -> List[Tuple[float, str, Dict[int, str]]]:
            self._check([len(scores)], first=True)
            ((experts, branches),) = self.dht.coordinates([self.uid_prefix], timeout=self.timeout)
            flat = len(self.grid_size) == 1
            live = [i for i in itertools.chain(*(experts if flat else branches)) if i < len(scores)]
            best = sorted(live, key=lambda i: (-scores[i], i))[:beam_size]
            if flat:
                return [(float(scores[i]), f"{self.uid_prefix}{i}.", {-1: f"{self.uid_prefix}{i}"}) for i in best]
            prefixes = [f"{self.uid_prefix}{i}." for i in best]
            successors = self.get_active_successors(prefixes)
            return [(float(scores[i]), prefix, successors[prefix]) for i, prefix in zip(best, prefixes)]
        return _answer(find, return_future)

    def get_active_successors(self, prefixes: Sequence[str], grid_size: Optional[int] = None, return_future: bool = False) -> Any:
        """{prefix: {coordinate: uid, or prefix without its last dot, of what is live behind it}}; {} where nothing is."""
        for prefix in prefixes:
            assert is_valid_prefix(prefix), f"{prefix!r} is no prefix of uids, such as ffn.4."

        def find() -> Dict[str, Dict[int, str]]:
            found = self.dht.coordinates(list(prefixes), timeout=self.timeout)
            end = math.inf if grid_size is None else grid_size
            return {prefix: {i: f"{prefix}{i}" for i in sorted(set(itertools.chain(*experts, *branches))) if i < end}
                    for prefix, (experts, branches) in zip(prefixes, found)}
        return _answer(find, return_future)

    def _check(self, sizes: List[int], first: bool = False) -> None:
        expected = list(self.grid_size[:1] if first else self.grid_size)
        if sizes != expected:
            raise InvalidArgument(f"scores of {sizes} coordinates were given for a grid of {list(self.grid_size)}")

    def _experts(self, found: List[Found]) -> List[RemoteExpert]:
        return [RemoteExpert(one.uid, self.dht, **self.expert_options) for one in found]


def _answer(find: Callable[[], Any], return_future: bool) -> Any:
    """Its value; or a future that has it, for programs that ask for one."""
    if not return_future:
        return find()
    future: "Future[Any]" = Future()
    try:
        future.set_result(find())
    except Exception as error:
        future.set_exception(error)
    return future
