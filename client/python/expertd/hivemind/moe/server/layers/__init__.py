"""hivemind.moe.server.layers."""
from __future__ import annotations

from typing import Any, Callable, Dict

from .....server import schedule_name_to_scheduler
from ...._elsewhere import done_elsewhere

__all__ = ["name_to_block", "register_expert_class", "schedule_name_to_scheduler"]

# What expert_cls= may name without further ado; the path of an own expert's shared object is the other choice.
name_to_block: Dict[str, str] = {name: name for name in ("ffn", "transformer", "nop", "nop_delay", "det_dropout")}


def register_expert_class(name: str, sample_input: Callable[[int, int], Any]) -> Callable[[type], type]:
    raise done_elsewhere(f"registering the class {name} as a block of the server",
                         "declare it of the server's layers (Server.create(blocks=[...]), docs/blocks.md), or write it as an own "
                         "expert (README.md, Own experts) and give its path as expert_cls")
