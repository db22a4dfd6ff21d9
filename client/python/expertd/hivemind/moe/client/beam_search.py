"""hivemind.moe.client.beam_search."""
from ....beam import MoEBeamSearcher

__all__ = ["MoEBeamSearcher"]
