"""Calls of many experts: those that go to one server go there in one message (proto/PROTOCOL.md, "Many experts at once").
What becomes of a part is its task's alone: it goes on elsewhere, is repeated by itself, or has failed."""
from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import torch

from . import tags
from .call import Call
from .client import Client
from .codecs import BFLOAT16, FLOAT16, MEANSTD, NONE, codec_number
from .errors import DeadlineExceeded, ExpertdError, Internal, InvalidArgument, NotFound, Unavailable, of_failure
from .task import Task
from .transport import transport

__all__ = ["start_all"]

MOST_PARTS = 512
MOST_NAMES = 14 << 10  # bytes of a header that fits every way
MOST_BYTES = 8 << 20  # of a message's tensors: beyond that one message saves nothing, and the first rows would wait for the last
_PART_BYTES = 24  # of a header, beside the uid
# The others have one table of numbers for a whole tensor: an expert's small values would vanish beside another's large ones.
_CODECS_BY_ROW = (NONE, FLOAT16, BFLOAT16, MEANSTD)


def start_all(tasks: Sequence[Task], callback: Optional[Callable[[Task], None]] = None) -> None:
    """Starts them all, and returns at once; callback(task) runs when one has ended, in any thread, which it must not keep."""
    for task in tasks:
        task.expect(callback)
    _send([task for task in tasks if task.turn()])


def _send(tasks: Iterable[Task], numbers: Optional[Dict[Task, int]] = None) -> None:
    """Tasks that have turned to a server; `numbers`: the request ids that they have already."""
    open_messages: Dict[Any, List["_Message"]] = {}
    messages: List[_Message] = []
    for task in tasks:
        rooms = open_messages.setdefault(_kind(task), [])
        message = next((room for room in rooms if room.takes(task)), None)
        if message is None:
            message = _Message()
            rooms.append(message)
            messages.append(message)
        message.add(task, numbers[task] if numbers else 0)
    for message in messages:
        message.send()


def _kind(task: Task) -> Any:
    """Tasks of one kind may be parts of one message."""
    try:
        if codec_number(task.compression) not in _CODECS_BY_ROW or not transport().connection(_place(task)).knows_parts:
            return task
    except Exception:  # no codec, no endpoint, no descriptors: it will say so
        return task
    rows = {tensor.shape[0] if tensor.dim() else 0 for tensor in task.tensors}
    if len(rows) != 1 or not 0 < min(rows) < 1 << 32:
        return task
    return (_place(task), task.endpoint, task.backward, task.compression, task.requires_grad and tuple(task.requires_grad), task.tags, task.retry_for(),
            tuple([(tensor.dtype, tensor.shape[1:], tensor.device) for tensor in task.tensors]))


def _place(task: Task) -> str:
    """The server, or that of its other frontends which is known to have the expert."""
    return transport().routes.get((task.endpoint, task.uid)) or task.endpoint


class _Message:
    """Tasks on their way to one server."""

    def __init__(self) -> None:
        self.tasks: List[Task] = []
        self._uids: Dict[str, int] = {}  # and the request id of each
        self._names = self._bytes = 0
        self._call: Optional[Call] = None
        self._waiting = 0  # tasks that have not been given up
        self._lock = threading.Lock()

    def takes(self, task: Task) -> bool:
        return (len(self.tasks) < MOST_PARTS and task.uid not in self._uids and self._names + _name_bytes(task) <= MOST_NAMES
                and self._bytes + _tensor_bytes(task) <= MOST_BYTES)

    def add(self, task: Task, number: int) -> None:
        self.tasks.append(task)
        self._uids[task.uid] = number
        self._names, self._bytes = self._names + _name_bytes(task), self._bytes + _tensor_bytes(task)

    def send(self) -> None:
        if len(self.tasks) == 1:
            self.tasks[0].send(self._uids[self.tasks[0].uid])
            return
        first, process = self.tasks[0], transport()
        for uid, number in self._uids.items():
            self._uids[uid] = number or next(process.request_ids)
        self._waiting = len(self.tasks)
        call: Optional[Call] = None
        try:
            client = Client(first.endpoint, compression=first.compression)
            with tags.under(first.tags):
                call = client.prepare_parts([(task.uid, task.rows(), self._uids[task.uid]) for task in self.tasks],
                                            [_joined(column) for column in zip(*[task.tensors for task in self.tasks])],
                                            backward=first.backward, requires_grad=first.requires_grad,
                                            timeout=max(0.001, max(task.left() for task in self.tasks)), retry_for=first.retry_for())
            # Before it is on its way: who is interrupted finds it, and gives it up.
            at = call.connection = process.connection_for(_place(first), call.frames)
            self._call = call
            for task in self.tasks:
                task.ride(self, call)
            at.start(call)
            call.add_done_callback(self._ended)
        except Exception as failure:
            if call is not None and self._call is call:
                call.cancel()  # it may be on its way all the same
            sent = call is not None and call.ever_sent
            self._fail(of_failure(failure, endpoint=first.endpoint, not_applied=not (first.backward and sent)))

    def leave(self) -> None:
        """One of them is given up; and the message with the last one."""
        with self._lock:
            self._waiting -= 1
            last = self._waiting == 0
        if last and self._call is not None:
            self._call.cancel()

    def _ended(self, call: Call) -> None:
        try:
            self._settle(call)
        except Exception as failure:  # who waits for one of them is never left behind
            for task in self.tasks:
                if task.rides(self) and not task.done():
                    task.abandon(failure)

    def _settle(self, call: Call) -> None:
        error = call.error
        if isinstance(error, (InvalidArgument, NotFound)):
            # Refused as a whole, and nothing was done now: one expert has another shape or takes fewer rows, or the server knows
            # no parts. Each for itself hears what it is, under its id: the message may have been repeated.
            if isinstance(error, NotFound) and not call.followed:
                transport().connection(call.connection.endpoint).knows_parts = False
            for task in self.tasks:
                task.send(self._uids[task.uid], call.uncertain)
        elif error is not None:
            self._fail(error)
        else:
            self._take(call)

    def _take(self, call: Call) -> None:
        outputs: Tuple[torch.Tensor, ...] = ()
        rows = sum(task.rows() for task in self.tasks)
        try:
            if len(call.reply.parts) != len(self.tasks):
                raise Internal(f"the reply has {len(call.reply.parts)} parts, the request {len(self.tasks)}", not_applied=not call.backward)
            if call.reply.status == 0:
                outputs = Client.outputs(call)
            if any(part.status == 0 for part in call.reply.parts) and not all(len(y) == rows for y in outputs):
                raise Internal(f"the answers to {rows} rows have another number of them", not_applied=not call.backward)
        except Internal as error:
            self._fail(error)
            return
        except Exception as error:  # a tensor without rows
            self._fail(Internal(f"the reply's tensors are not those of the parts: {error}", not_applied=not call.backward))
            return
        at = 0
        going_on, turning = [], {}  # type: List[Task], Dict[Task, int]
        for task, part in zip(self.tasks, call.reply.parts):
            end = at + task.rows()
            if part.status == 0:
                task.answer(tuple([y[at:end] for y in outputs]))
            elif part.status == NotFound.status and _turns(task, part, call):
                turning[task] = self._uids[task.uid]
            elif part.status == NotFound.status and (not part.message or "://" in part.message or _place(task) != task.endpoint):
                # Perhaps at another of the server's frontends: a message of its own goes after it. Where many were
                # refused, there was no room to say why; and of frontends of before only the message said where.
                task.send(self._uids[task.uid], call.uncertain)
            elif task.refuse(part.status, part.message or "the server gives no reason", part.retry_after_ms / 1000,
                              self._uids[task.uid], call.uncertain):
                going_on.append(task)
            at = end
        _send(going_on)
        _send(turning, turning)

    def _fail(self, error: ExpertdError) -> None:
        going_on = []
        for task in self.tasks:
            if isinstance(error, (Unavailable, NotFound, DeadlineExceeded)):
                transport().routes.pop((task.endpoint, task.uid), None)  # the next asks at home where it is
            own = type(error)(error.message, endpoint=task.endpoint, uid=task.uid, not_applied=error.not_applied, status=error.status)
            if task.fail(own):
                going_on.append(task)
        _send(going_on)


def _turns(task: Task, part: Any, call: Call) -> bool:
    """Whether what was not there goes on, together with others, at another of the server's frontends: where that which was
    asked first says that it is, for which it is believed once; or there, when it was only remembered to be elsewhere."""
    if call.followed or call.uncertain or task.followed:
        return False
    if call.connection.endpoint != task.endpoint:
        transport().routes.pop((task.endpoint, task.uid), None)
        return True
    if not 0 < part.frontend <= len(call.reply.endpoints):
        return False
    task.followed = True
    return transport().follow(task.endpoint, task.uid, call.reply.endpoints[part.frontend - 1]) is not None


def _name_bytes(task: Task) -> int:
    return len(task.uid.encode()) + _PART_BYTES


def _tensor_bytes(task: Task) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in task.tensors)


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """All their rows; without a copy where they lie behind each other in one memory."""
    first = tensors[0]
    end, memory = first.data_ptr(), _memory(first)  # of one storage, not two that happen to touch
    for tensor in tensors:
        if tensor.data_ptr() != end or not tensor.is_contiguous() or _memory(tensor) != memory:
            return torch.cat(list(tensors))
        end += tensor.numel() * tensor.element_size()
    return first.as_strided((sum(len(tensor) for tensor in tensors), *first.shape[1:]), first.stride())


def _memory(tensor: torch.Tensor) -> int:
    return int((tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()).data_ptr())
