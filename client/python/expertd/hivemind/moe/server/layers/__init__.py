"""hivemind.moe.server.layers."""
from __future__ import annotations

from .....registry import add_custom_models_from_file, name_to_block, name_to_input, register_expert_class
from .....server import schedule_name_to_scheduler

__all__ = ["add_custom_models_from_file", "name_to_block", "name_to_input", "register_expert_class", "schedule_name_to_scheduler"]
