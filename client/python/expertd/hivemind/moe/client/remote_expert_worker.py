"""hivemind.moe.client.remote_expert_worker: an event loop in the background for a program's own coroutines. expertd's calls
do not need it."""
from __future__ import annotations

import asyncio
import os
import threading
from typing import Any, Coroutine, Optional

__all__ = ["RemoteExpertWorker"]


class RemoteExpertWorker:
    """One loop for each process."""

    _lock = threading.Lock()
    _loop: Optional[asyncio.AbstractEventLoop] = None
    _pid: Optional[int] = None

    @classmethod
    def run_coroutine(cls, coro: "Coroutine[Any, Any, Any]", return_future: bool = False) -> Any:
        """Its result, or a concurrent.futures.Future of it. Any thread but the loop's own."""
        with cls._lock:
            if cls._pid != os.getpid():
                cls._loop, cls._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=cls._loop.run_forever, name="expertd-coroutines", daemon=True).start()
            loop = cls._loop
        assert loop is not None
        future = asyncio.run_coroutine_threadsafe(coro, loop)
        return future if return_future else future.result()


def _after_fork() -> None:
    RemoteExpertWorker._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
