"""Progress of what takes long, by tqdm where that is installed."""
from __future__ import annotations

import sys
from typing import Any, Optional

__all__ = ["Progress"]


class Progress:
    """A bar of `total` steps on stderr. `show` None: on a terminal or in a notebook; without tqdm nothing is shown."""

    def __init__(self, what: str, total: int, show: Optional[bool] = None):
        self._bar: Any = None
        if show is None:
            show = sys.stderr.isatty() or "ipykernel" in sys.modules
        if show and total > 0:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, desc=what, leave=False, delay=1.0)

    def reach(self, done: int) -> None:
        """So many steps are done."""
        if self._bar is not None and done > self._bar.n:
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
