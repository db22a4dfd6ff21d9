"""What hivemind has and a client of expertd does not: says so, and where it is instead."""
from __future__ import annotations

import warnings
from typing import Any, Dict, Iterable

from ..errors import Unimplemented


def done_elsewhere(what: str, instead: str) -> Unimplemented:
    return Unimplemented(f"{what} is not done by this client: {instead}")


def drop(options: Dict[str, Any], names: Iterable[str], where: str) -> None:
    """Takes the options away that have no meaning here, with a warning for each."""
    for name in names:
        if options.pop(name, None) is not None:
            warnings.warn(f"{where}: {name} has no meaning with expertd and is ignored", stacklevel=3)
