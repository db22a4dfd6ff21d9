"""A table of a server's experts and counters, for people."""
from __future__ import annotations

from typing import Any, List, Tuple

from .client import Client
from .errors import ExpertdError
from .info import ExpertInfo, expert_info

__all__ = ["Table", "top"]

_INFO = 3  # METHOD INFO


class Table:
    """Prints as a table. `rows` has one for each expert: uid, block, device, alive, updates, examples, skipped steps."""

    columns = ("uid", "block", "device", "alive", "updates", "examples", "skipped")

    def __init__(self, head: str, rows: List[Tuple[Any, ...]]):
        self.head, self.rows = head, rows

    def __repr__(self) -> str:
        lines = [[str(value) for value in row] for row in [self.columns, *self.rows]]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join([self.head] + ["  ".join(value.ljust(width) for value, width in zip(line, widths)).rstrip()
                                        for line in lines])


def top(endpoint: str, prefix: str = "", *, timeout: float = 10.0) -> Table:
    """The server's experts whose uid begins with prefix, at whatever frontend, those that learned most first, under a line
    about the server."""
    client = Client(endpoint, timeout=timeout)
    pong, stats, experts, alive, in_flight = client.ping(), client.stats(), 0, 0, 0.0
    frontends = client.frontends()
    for one in frontends:
        try:
            own = one.ping()
            experts, alive = experts + own.experts, alive + own.experts_alive
            in_flight += one.stats().get("frontend.in_flight", 0)
        except ExpertdError:  # it is down, and so are its experts
            pass
    calls = [(entry, client.start(_INFO, entry.uid)) for entry in client.list(prefix)]
    rows = []
    for entry, call in calls:
        try:
            info: ExpertInfo = expert_info(call.result().info)
        except ExpertdError:  # its runtime was never up
            rows.append((entry.uid, "?", entry.device, entry.alive, 0, 0, 0))
            continue
        rows.append((info.uid, info.block, info.device, entry.alive, info.update_count, info.examples_processed,
                     info.skipped_steps))
    several = f" ({len(frontends)} frontends)" if len(frontends) > 1 else ""
    head = (f"{pong.server} at {endpoint}{several}: {pong.software}, {alive} of {experts} experts alive, "
            f"{int(in_flight)} requests in flight, up {int(stats.get('frontend.uptime_s', 0))} s")
    return Table(head, sorted(rows, key=lambda row: (-row[4], row[0])))
