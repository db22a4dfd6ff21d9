"""hivemind.moe.client.moe."""
from __future__ import annotations

from typing import Any, Optional, Sequence, Tuple

import torch

from ....expert import ANCHOR as DUMMY
from ....expert import RemoteExpert
from ....gather import Settings, Target, call_many
from ....info import ExpertInfo
from ....mixture import RemoteMixtureOfExperts

__all__ = ["DUMMY", "RemoteMixtureOfExperts", "_RemoteCallMany"]


class _RemoteCallMany:
    """hivemind's autograd function for many experts, by its arguments."""

    @staticmethod
    def apply(dummy: torch.Tensor, experts_per_sample: Sequence[Sequence[RemoteExpert]], k_min: int, backward_k_min: int,
              timeout_after_k_min: Optional[float], forward_timeout: Optional[float], backward_timeout: Optional[float],
              detect_anomalies: bool, allow_zero_outputs: bool, info: ExpertInfo, *flat_inputs: torch.Tensor
              ) -> Tuple[Any, ...]:
        """(mask [samples, k], outputs [samples, k, ...])."""
        endpoints = {expert.uid: tuple(expert.endpoints()) for row in experts_per_sample for expert in row}
        targets = [[Target(expert.uid, endpoints[expert.uid], info.max_batch_size, expert.compression) for expert in row]
                   for row in experts_per_sample]
        settings = Settings(k_min, backward_k_min, timeout_after_k_min, forward_timeout, backward_timeout, detect_anomalies,
                            allow_zero_outputs)
        return call_many(targets, settings, [(field.dtype, field.row_shape) for field in info.outputs_schema], *flat_inputs)
