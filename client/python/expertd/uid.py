"""Expert uids: `ffn.4.17` is the prefix `ffn` and the grid coordinates 4 and 17. hivemind's grammar."""
from __future__ import annotations

import re
from typing import Tuple

__all__ = ["is_valid_uid", "is_valid_prefix", "split_uid"]

UID_DELIMITER = "."
MAX_UID_BYTES = 127
_UID = re.compile(r"[^.]+([.](?:0|[1-9][0-9]*))+", re.ASCII)
_PREFIX = re.compile(r"[^.]+([.](?:0|[1-9][0-9]*))*[.]", re.ASCII)


def is_valid_uid(uid: str) -> bool:
    """A prefix without dots, then one or more numbers without leading zeros, each after a dot: "ffn.4.17"."""
    return bool(_UID.fullmatch(uid))


def is_valid_prefix(prefix: str) -> bool:
    """What stands before a coordinate, with its dot: "ffn." or "ffn.4."."""
    return bool(_PREFIX.fullmatch(prefix))


def split_uid(uid: str) -> Tuple[str, int]:
    """("ffn.4.", 17) of "ffn.4.17", also of the prefix "ffn.4.17."."""
    uid = uid.rstrip(UID_DELIMITER)
    pivot = uid.rindex(UID_DELIMITER) + 1
    return uid[:pivot], int(uid[pivot:])
