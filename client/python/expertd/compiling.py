"""torch.compile leaves what calls servers as it is: a network call is nothing to trace."""
from __future__ import annotations

import functools
import sys
from typing import Any, Callable, Optional, TypeVar, cast

__all__ = ["untraced"]

Forward = TypeVar("Forward", bound=Callable[..., Any])


def untraced(forward: Forward) -> Forward:
    """A module's forward of which nothing is traced, nor of what it calls."""
    outside: Optional[Callable[..., Any]] = None

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal outside
        if outside is None:
            # Who compiles has imported it; to import it takes seconds.
            disable = getattr(sys.modules.get("torch._dynamo"), "disable", None)
            if disable is None:
                return forward(*args, **kwargs)
            outside = disable(forward)
        return outside(*args, **kwargs)
    call._torchdynamo_disable = True  # type: ignore[attr-defined]  # of this frame alone
    return cast(Forward, call)
