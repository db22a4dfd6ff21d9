"""hivemind.moe.client."""
from .expert import RemoteExpert
from .moe import RemoteMixtureOfExperts
from .switch_moe import RemoteSwitchMixtureOfExperts

__all__ = ["RemoteExpert", "RemoteMixtureOfExperts", "RemoteSwitchMixtureOfExperts"]
