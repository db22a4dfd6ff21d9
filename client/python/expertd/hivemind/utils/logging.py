"""hivemind.utils.logging."""
from __future__ import annotations

import logging
from logging import getLogger as get_logger

__all__ = ["get_logger", "use_hivemind_log_handler"]


def use_hivemind_log_handler(where: str) -> None:
    """"in_root_logger": messages of this process go to standard error, if the program has no handler yet; else nothing."""
    if where == "in_root_logger":
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
