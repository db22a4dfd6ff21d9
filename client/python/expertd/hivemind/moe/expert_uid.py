"""hivemind.moe.expert_uid."""
from __future__ import annotations

import re
from typing import NamedTuple

from ...uid import UID_DELIMITER, is_valid_prefix, is_valid_uid, split_uid

__all__ = ["Coordinate", "ExpertInfo", "ExpertPrefix", "ExpertUID", "FLAT_EXPERT", "UID_DELIMITER", "UID_PATTERN",
           "is_valid_prefix", "is_valid_uid", "split_uid"]

ExpertUID, ExpertPrefix, Coordinate = str, str, int
FLAT_EXPERT = -1
UID_PATTERN = re.compile("^(([^.])+)([.](?:[0]|([1-9]([0-9]*))))+$", re.ASCII)


class ExpertInfo(NamedTuple):
    """An expert and the server that hosts it: peer_id is the endpoint of the server's frontend."""
    uid: str
    peer_id: str
