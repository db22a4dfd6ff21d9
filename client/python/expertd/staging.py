"""Tensors between a GPU and the host: through pinned memory, from and to which the GPU copies by itself. Copies of several
tensors are under way together, and waited for once; what goes to the GPU is not waited for at all, as whatever reads it
there stands behind it in the stream.

From a GPU only in the thread that computed: another one has another current stream, which knows nothing of what is still
to be computed."""
from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import torch

__all__ = ["move", "to_device", "to_host"]

PINNED_FROM = 1 << 16  # bytes; the driver copies less on the way, without waiting


def to_host(tensors: Sequence[torch.Tensor]) -> List[torch.Tensor]:
    """The tensors on the CPU, without their history; those that are there as they are."""
    moved: List[torch.Tensor] = []
    begun: Dict[torch.device, Any] = {}
    for tensor in tensors:
        if tensor.is_cpu:
            moved.append(tensor)
        elif tensor.is_cuda and tensor.layout == torch.strided:
            host = _pinned(tensor)
            host.copy_(tensor.detach(), non_blocking=True)
            begun[tensor.device] = None
            moved.append(host)
        else:
            plain = tensor.is_meta or tensor.layout != torch.strided
            moved.append(tensor if plain else tensor.detach().cpu())
    for event in [_mark(device) for device in begun]:
        event.synchronize()
    return moved


def to_device(tensors: Sequence[torch.Tensor], device: torch.device) -> List[torch.Tensor]:
    """The CPU's tensors there."""
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    moved = []
    for tensor in tensors:
        if tensor.numel() * tensor.element_size() >= PINNED_FROM:
            # The memory is given to nobody else before the copy out of it is made: torch's allocator sees to that.
            host = _pinned(tensor)
            host.copy_(tensor)
            tensor = host
        moved.append(tensor.to(device, non_blocking=True))
    return moved


def _pinned(like: torch.Tensor) -> torch.Tensor:
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)


def _mark(device: torch.device) -> Any:
    """What is reached when all is done that the device has been given so far."""
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def move(tensors: Sequence[torch.Tensor], device: torch.device) -> List[torch.Tensor]:
    """Between the CPU and a device, gradients the other way."""
    if all(tensor.device == device for tensor in tensors):
        return list(tensors)
    return list(_Move.apply(device, *tensors))


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, device: torch.device, *tensors: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        ctx.devices = [tensor.device for tensor in tensors]
        moved = to_host(tensors) if device.type == "cpu" else to_device(tensors, device)
        ctx.mark_non_differentiable(*(tensor for tensor in moved if not tensor.dtype.is_floating_point))
        return tuple([there.view_as(there) if there is here else there for there, here in zip(moved, tensors)])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Tuple[Any, ...]:
        back = list(grads)
        for device in dict.fromkeys(ctx.devices):  # each to where its tensor was
            at = [i for i, own in enumerate(ctx.devices) if own == device and grads[i].device != device]
            some = [grads[i] for i in at]
            for i, grad in zip(at, to_host(some) if device.type == "cpu" else to_device(some, device)):
                back[i] = grad
        return (None, *back)
