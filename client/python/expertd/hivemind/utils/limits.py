"""hivemind.utils.limits."""
from __future__ import annotations

import resource

from .logging import get_logger

__all__ = ["increase_file_limit"]


def increase_file_limit(new_soft: int = 2 ** 15, new_hard: int = 2 ** 15) -> None:
    """Lets this process have more files and sockets open, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(new_soft, max(hard, new_hard))), max(hard, new_hard)))
    except (OSError, ValueError):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(new_soft, hard)), hard))
        except (OSError, ValueError) as error:
            get_logger(__name__).warning("the limit of open files stays at %d: %s", soft, error)
