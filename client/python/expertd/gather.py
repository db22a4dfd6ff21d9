"""Calls of many experts at once: each expert gets all rows that chose it, in one message to each server. An expert that
fails gives no answer; who waits for how long follows hivemind's k_min and timeouts, row by row.

The answer to a message comes when its slowest expert has answered. So where a round may end before all have
(timeout_after_k_min), each expert has a message of its own."""
from __future__ import annotations

import threading
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch.autograd.function import once_differentiable

from . import tags
from .client import DEFAULT_RETRY_FOR
from .errors import DeadlineExceeded, ExpertdError, Unavailable
from .expert import ANCHOR
from .parts import start_all
from .task import Task, by_load, spread

__all__ = ["Target", "Settings", "call_many"]

LONGEST_TIMEOUT = 86400.0 * 30


class Target(NamedTuple):
    """An expert, the servers that host it, its most rows in a call, and the codec of its tensors."""
    uid: str
    endpoints: Tuple[str, ...]
    max_rows: int = 1 << 30
    compression: Optional[str] = None


class Settings(NamedTuple):
    """As of RemoteMixtureOfExperts."""
    k_min: int = 1
    backward_k_min: int = 1
    timeout_after_k_min: Optional[float] = None
    forward_timeout: Optional[float] = None
    backward_timeout: Optional[float] = None
    detect_anomalies: bool = False
    allow_zero_outputs: bool = False


class _Job(NamedTuple):
    target: Target
    pairs: List[Tuple[int, int]]  # (row, slot)
    task: Task


class _Round:
    """The jobs of one forward or backward, and what each row has got. `shapes`: the row shapes that an answer may have."""

    def __init__(self, jobs: List[_Job], rows: int, enough: int, timeout: Optional[float], after: Optional[float],
                 finite: bool, shapes: Sequence[Sequence[Tuple[int, ...]]]):
        self.jobs, self.answers = jobs, {}  # type: List[_Job], Dict[int, Tuple[torch.Tensor, ...]]
        self._numbers = {job.task: index for index, job in enumerate(jobs)}
        self.errors: List[str] = []
        self._finite, self._after, self._shapes = finite, after, [[tuple(shape) for shape in each] for each in shapes]
        self._end = time.monotonic() + (LONGEST_TIMEOUT if timeout is None else timeout)
        self._changed = threading.Condition()
        self._ended: List[int] = []
        # A row waits for `enough` answers, or as many as it asked for, at least one: what an enough of 0 means is that
        # none of them is needed, not that none is waited for.
        asked = [0] * rows
        for job in jobs:
            for row, _ in job.pairs:
                asked[row] += 1
        self._lacks = [min(max(enough, 1), count) for count in asked]
        self._rows_lacking = sum(lack > 0 for lack in self._lacks)

    def run(self) -> None:
        """Starts all, and returns when all have ended or the time is over; cancels the rest."""
        try:
            if self._after is None:
                start_all([job.task for job in self.jobs], self._tell)
            else:
                for job in self.jobs:
                    job.task.start(self._tell)
            left = len(self.jobs)
            while left:
                with self._changed:
                    while not self._ended:
                        remaining = self._end - time.monotonic()
                        if remaining <= 0:
                            self.errors.append("not in time")
                            return
                        self._changed.wait(min(remaining, 3600.0))
                    ended, self._ended = self._ended, []
                left -= len(ended)
                for index in ended:
                    self._take(index)
        finally:
            for job in self.jobs:
                if not job.task.done():
                    job.task.cancel()

    def _tell(self, task: Task) -> None:
        with self._changed:
            self._ended.append(self._numbers[task])
            self._changed.notify()

    def _take(self, index: int) -> None:
        job = self.jobs[index]
        try:
            outputs = job.task.outputs()
        except ExpertdError as error:
            self.errors.append(str(error))
            return
        if self._finite and not all(bool(torch.isfinite(y).all()) for y in outputs if y.dtype.is_floating_point):
            self.errors.append(f"{job.target.uid}: its answer has NaN or infinite values")
            return
        if [tuple(y.shape[1:]) for y in outputs] not in self._shapes or any(len(y) != len(job.pairs) for y in outputs):
            self.errors.append(f"{job.target.uid}: its answer has other shapes: {[list(y.shape) for y in outputs]}")
            return
        self.answers[index] = outputs
        for row, _ in job.pairs:
            if self._lacks[row] > 0:
                self._lacks[row] -= 1
                self._rows_lacking -= self._lacks[row] == 0
        if self._rows_lacking == 0 and self._after is not None:
            self._end = min(self._end, time.monotonic() + self._after)

    def why(self) -> str:
        return "; ".join(dict.fromkeys(self.errors)) or "no expert was asked"


def _jobs(wanted: Dict[Target, List[Tuple[int, int]]], inputs: Sequence[torch.Tensor], backward: bool,
          grad_outputs: Sequence[torch.Tensor], timeout: Optional[float],
          requires_grad: Optional[Sequence[bool]] = None) -> List[_Job]:
    jobs: List[_Job] = []
    seconds = LONGEST_TIMEOUT if timeout is None else timeout
    ordered = [(by_load(target.endpoints), target, pairs) for target, pairs in wanted.items()]
    ordered.sort(key=lambda one: one[0][:1])  # what goes to one server lies in one piece
    everything = [pair for _, _, pairs in ordered for pair in pairs]
    if not everything:
        return jobs
    rows = torch.tensor([row for row, _ in everything])
    chosen = [tensor.index_select(0, rows) for tensor in inputs]
    out: List[torch.Tensor] = []
    if backward:
        slots = torch.tensor([slot for _, slot in everything])
        out = [grad[rows, slots] for grad in grad_outputs]
    at = 0
    for endpoints, target, pairs in ordered:
        for begin in range(0, len(pairs), target.max_rows):
            own = pairs[begin:begin + target.max_rows]
            mine = slice(at, at + len(own))
            at += len(own)
            jobs.append(_Job(target, own, Task(target.uid, endpoints, [x[mine] for x in chosen], [g[mine] for g in out] if backward else None,
                                               timeout=seconds, retry_for=DEFAULT_RETRY_FOR, patient=False,
                                               compression=target.compression, requires_grad=requires_grad)))
    return jobs


def call_many(targets: Sequence[Sequence[Target]], settings: Settings, output_shapes: Sequence[Tuple[torch.dtype, Tuple[int, ...]]],
              *inputs: torch.Tensor) -> Tuple[torch.Tensor, ...]:
    """Row i of the inputs (CPU, the schema's dtypes) goes to the experts targets[i]. Returns mask [rows, k] of bool, which
    of them answered, and the outputs, each [rows, k, ...], zeros where nobody answered; k is the longest list's length.
    output_shapes: dtype and row shape of each output.

    DeadlineExceeded (a TimeoutError) where fewer than k_min answered to all rows together; Unavailable where a row got no
    answer, unless allow_zero_outputs; ValueError for inputs and gradients that are not finite, if detect_anomalies."""
    return tuple(_CallMany.apply(ANCHOR, targets, settings, output_shapes, *inputs))


class _CallMany(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, targets: Sequence[Sequence[Target]], settings: Settings,
                output_shapes: Sequence[Tuple[torch.dtype, Tuple[int, ...]]], *inputs: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        rows = len(targets)
        if settings.detect_anomalies:
            _refuse_anomalies(inputs, "an input")
        wanted: Dict[Target, List[Tuple[int, int]]] = {}
        for row, chosen in enumerate(targets):
            for slot, target in enumerate(chosen):
                wanted.setdefault(target, []).append((row, slot))
        jobs = _jobs(wanted, inputs, False, (), settings.forward_timeout)
        work = _Round(jobs, rows, settings.k_min, settings.forward_timeout, settings.timeout_after_k_min,
                      settings.detect_anomalies, [[shape for _, shape in output_shapes]])
        work.run()
        k = max((len(chosen) for chosen in targets), default=0)
        mask = torch.zeros(rows, k, dtype=torch.bool)
        outputs = [torch.zeros(rows, k, *shape, dtype=dtype) for dtype, shape in output_shapes]
        answered: List[Tuple[Target, List[Tuple[int, int]]]] = []
        for index, answer in work.answers.items():
            pairs = jobs[index].pairs
            at = torch.tensor([row for row, _ in pairs]), torch.tensor([slot for _, slot in pairs])
            mask[at] = True
            for output, part in zip(outputs, answer):
                output[at] = part
            answered.append((jobs[index].target._replace(endpoints=(jobs[index].task.endpoint,)), pairs))
        if int(mask.sum()) < settings.k_min:
            raise DeadlineExceeded(f"{int(mask.sum())} answers came, and k_min is {settings.k_min}: {work.why()}")
        if not settings.allow_zero_outputs and not bool(mask.any(dim=1).all()):
            lacking = int((~mask.any(dim=1)).sum())
            raise Unavailable(f"{lacking} of {rows} rows got no answer: {work.why()}")
        ctx.answered, ctx.settings, ctx.tags = answered, settings, tags.current()
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(mask)
        return (mask, *outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: torch.Tensor, *grad_outputs: torch.Tensor) -> Tuple[Any, ...]:
        inputs, settings, wants = ctx.saved_tensors, ctx.settings, ctx.needs_input_grad[4:]  # false for what is no float
        if settings.detect_anomalies:
            _refuse_anomalies(grad_outputs, "a gradient")
        wanted: Dict[Target, List[Tuple[int, int]]] = {}
        for target, pairs in ctx.answered:
            wanted.setdefault(target, []).extend(pairs)
        with tags.under(ctx.tags if tags.current() is tags.NONE else tags.current()):
            jobs = _jobs(wanted, inputs, True, grad_outputs, settings.backward_timeout, wants)
        shapes = [tensor.shape[1:] for tensor in inputs]
        work = _Round(jobs, len(inputs[0]), settings.backward_k_min, settings.backward_timeout,
                      settings.timeout_after_k_min, settings.detect_anomalies,
                      [shapes, [shape for shape, want in zip(shapes, wants) if want]])
        work.run()
        count = sum(len(jobs[index].pairs) for index in work.answers)
        if count < settings.backward_k_min:
            raise DeadlineExceeded(f"{count} answers to the backward came, and backward_k_min is "
                                   f"{settings.backward_k_min}: {work.why()}")
        grads: List[Optional[torch.Tensor]] = [torch.zeros_like(tensor) if want else None for tensor, want in zip(inputs, wants)]
        for index, answer in work.answers.items():
            rows = torch.tensor([row for row, _ in jobs[index].pairs])
            for grad, part in zip(grads, spread(answer, wants, jobs[index].target.uid)):
                if grad is not None and part is not None:
                    grad.index_add_(0, rows, part.to(grad.dtype))
        return (None, None, None, None, *grads)


def _refuse_anomalies(tensors: Sequence[torch.Tensor], what: str) -> None:
    for tensor in tensors:
        if tensor.dtype.is_floating_point and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{what} has NaN or infinite values (detect_anomalies)")
