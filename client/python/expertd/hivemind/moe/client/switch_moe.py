"""hivemind.moe.client.switch_moe."""
from ....mixture import RemoteSwitchMixtureOfExperts

__all__ = ["RemoteSwitchMixtureOfExperts"]
