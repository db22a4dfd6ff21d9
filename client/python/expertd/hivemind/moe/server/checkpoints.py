"""hivemind.moe.server.checkpoints."""
from __future__ import annotations

from typing import Any

from ..._elsewhere import done_elsewhere

__all__ = ["load_experts", "store_experts"]


def store_experts(*_: Any, **__: Any) -> None:
    raise done_elsewhere("writing experts' checkpoints", "the server does: Client.checkpoint(), Server.create(checkpoint_dir=...)")


def load_experts(*_: Any, **__: Any) -> None:
    raise done_elsewhere("loading experts' checkpoints",
                         "the server does at its start; scripts/convert-state-dict converts hivemind's .pt files")
