"""hivemind.moe.client.expert."""
from __future__ import annotations

from concurrent.futures import Future
from typing import Any, List, Optional, Sequence

from ....expert import ANCHOR as DUMMY
from ....expert import RemoteExpert
from ..expert_uid import ExpertInfo

__all__ = ["DUMMY", "RemoteExpert", "batch_create_remote_experts", "create_remote_experts"]


def create_remote_experts(infos: Sequence[Optional[ExpertInfo]], dht: Any = None, return_future: bool = False) -> Any:
    """A RemoteExpert for each info, None for None."""
    experts: List[Optional[RemoteExpert]] = [None if info is None else RemoteExpert(info) for info in infos]
    return _answer(experts, return_future)


def batch_create_remote_experts(infos: Sequence[Sequence[Optional[ExpertInfo]]], dht: Any = None,
                                return_future: bool = False) -> Any:
    return _answer([create_remote_experts(row, dht) for row in infos], return_future)


def _answer(value: Any, return_future: bool) -> Any:
    if not return_future:
        return value
    future: "Future[Any]" = Future()
    future.set_result(value)
    return future
