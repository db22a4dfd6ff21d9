"""A remote expert as an nn.Module."""
from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch.autograd.function import once_differentiable

from . import tags
from .call import Call
from .client import DEFAULT_RETRY_FOR, DEFAULT_TIMEOUT, Client
from .codecs import Codec, codec_name
from .compiling import untraced
from .dht import DHT
from .errors import ExpertdError, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from .info import ExpertInfo, Field
from .staging import to_device
from .task import Task, by_load, spread
from .uid import is_valid_uid

__all__ = ["RemoteExpert"]

Outputs = Union[torch.Tensor, Tuple[torch.Tensor, ...]]

# Makes autograd call the backward, and so the expert learn, also where no input needs a gradient.
ANCHOR = torch.empty(0, requires_grad=True)
_PAUSE = 0.2  # seconds before a uid whose servers have all failed is looked up again


class RemoteExpert(torch.nn.Module):
    """The expert `uid` at `where`: a server's endpoint ("tcp://host:port"), a Client, or a DHT, which finds the servers
    that host it; calls then go to the one with the fewest of this process's calls in flight, and to the next when it
    fails. A pair (uid, endpoint) will do for both.

    Called with the inputs of the expert's schema, positional or by name, each of shape [rows, *row_shape] (an input may
    have more leading dimensions if all have the same), on any device; other floating dtypes than the schema's are
    converted. The outputs have the dtype and device of the first floating input. A backward through them sends inputs
    and gradients to the expert, which makes one optimizer step, and returns the gradients of the inputs.

    `timeout`: seconds for a forward and for a backward. `retry_for`: see Client. `compression`: the codec
    in which float32 tensors travel, both ways; None: the one that the server's configuration says. Raises ExpertdErrors; InvalidArgument
    (a ValueError) and TypeError for wrong inputs before anything is sent. Any thread may use it; it can be pickled."""

    _client: Optional[Client] = None  # also of one that was pickled when there was none

    def __init__(self, uid: Union[str, Tuple[str, str]], where: Any = None, *, timeout: float = DEFAULT_TIMEOUT,
                 backward_timeout: Optional[float] = None, retry_for: float = DEFAULT_RETRY_FOR,
                 compression: Codec = None):
        super().__init__()
        if isinstance(uid, tuple):  # hivemind's ExpertInfo, beside which it takes its P2P daemon
            uid, where = uid
        if not is_valid_uid(uid):
            raise InvalidArgument(f"{uid!r} is no uid of an expert, such as ffn.4.17")
        self.uid = uid
        self._dht = where if isinstance(where, DHT) else None
        self._endpoint = where.endpoint if isinstance(where, Client) else where if isinstance(where, str) else None
        if self._dht is None and self._endpoint is None:
            raise TypeError("where an expert is is an endpoint, a Client or a DHT")
        if self._endpoint is not None:
            Client(self._endpoint)  # complains now, and connects meanwhile
        self.timeout = timeout
        self.backward_timeout = timeout if backward_timeout is None else backward_timeout
        self.retry_for = retry_for
        self._compression = None if compression is None else codec_name(compression)
        self._info: Optional[ExpertInfo] = None

    @property
    def compression(self) -> str:
        """The codec that its calls use, "none" for none."""
        return self.info.compression if self._compression is None else self._compression

    def extra_repr(self) -> str:
        where = self._endpoint or repr(self._dht)
        if self._info is None:
            return f"{self.uid} at {where}"
        schema = ", ".join(map(str, self._info.forward_schema))
        return f"{self.uid} at {where}: {self._info.block}({schema}) -> {', '.join(map(str, self._info.outputs_schema))}"

    @property
    def info(self) -> ExpertInfo:
        """Schemas, settings and counters, as of the first time that they were needed."""
        if self._info is None:
            self._info = self.fetch_info()
        return self._info

    def fetch_info(self) -> ExpertInfo:
        """The same as of now."""
        error: Optional[ExpertdError] = None
        for endpoint in self.endpoints():
            try:
                return Client(endpoint, timeout=self.timeout, retry_for=self.retry_for).info(self.uid)
            except (Unavailable, NotFound, ResourceExhausted) as refused:
                error = refused
        raise error or NotFound("no live server hosts it", uid=self.uid)

    def endpoints(self, fresh: bool = False) -> List[str]:
        """The servers that host it, those first that are to be asked first."""
        if self._endpoint is not None:
            return [self._endpoint]
        assert self._dht is not None
        return by_load(self._dht.resolve([self.uid], fresh=fresh)[0])

    @property
    def peer_id(self) -> str:
        """The endpoint that the next call goes to."""
        return (self.endpoints() or [""])[0]

    @untraced
    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Outputs:
        """One tensor if the schema has one output, else a tuple."""
        inputs, leading = self._prepare(args, kwargs)
        if torch.is_grad_enabled():
            outputs = _RemoteCall.apply(ANCHOR, self, *inputs)
        else:
            outputs = self._move_outputs(self.call_forward(inputs), inputs)
        if leading is not None:
            outputs = tuple([output.reshape(*leading, *output.shape[1:]) for output in outputs])
        for tensor in (*args, *kwargs.values()):
            if tensor.dtype.is_floating_point:
                outputs = _as_floats(outputs, tensor.dtype)
                break
        return outputs[0] if len(outputs) == 1 else outputs

    # ---- inputs and outputs

    def _prepare(self, args: Sequence[torch.Tensor], kwargs: Dict[str, torch.Tensor]
                 ) -> Tuple[List[torch.Tensor], Optional[Tuple[int, ...]]]:
        schema = self.info.forward_schema
        inputs = _in_order(self.uid, schema, args, kwargs)
        leading: Optional[Tuple[int, ...]] = None
        for i, (field, tensor) in enumerate(zip(schema, inputs)):
            shape = tuple(tensor.shape)
            own = len(shape) - len(field.row_shape)
            if own < 1 or shape[own:] != field.row_shape:
                raise InvalidArgument(f"expected {field}, and a tensor of shape {list(shape)} was given", uid=self.uid)
            here = shape[:own]
            if leading is not None and here != leading:
                raise InvalidArgument(f"all inputs have the same rows: {list(leading)} and {list(here)} were given",
                                      uid=self.uid)
            leading = here
            if tensor.dtype != field.dtype:
                inputs[i] = self._convert(field, tensor)
        assert leading is not None
        if 0 in leading:
            raise InvalidArgument("there are no rows in the inputs", uid=self.uid)
        if len(leading) == 1:
            return inputs, None
        return [tensor.flatten(0, len(leading) - 1) for tensor in inputs], leading

    def _convert(self, field: Field, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype.is_floating_point and field.dtype.is_floating_point:
            return tensor.to(field.dtype)
        raise InvalidArgument(f"expected {field}, and a tensor of {tensor.dtype} was given", uid=self.uid)

    @staticmethod
    def _move_outputs(outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> Tuple[torch.Tensor, ...]:
        return tuple(outputs if inputs[0].is_cpu else to_device(outputs, inputs[0].device))

    # ---- calls; tensors of the schema's dtypes in, tensors on the CPU out

    def call_forward(self, inputs: Sequence[torch.Tensor]) -> Tuple[torch.Tensor, ...]:
        return self._call(inputs, None, self.timeout)

    def start_forward(self, inputs: Sequence[torch.Tensor]) -> Optional[Call]:
        """A call_forward() on its way, that this thread will wait for by outputs_of() right away. None: that begins it."""
        client = self._at_endpoint()
        return None if client is None else client.start_forward(self.uid, inputs, timeout=self.timeout, retry_for=self.retry_for,
                                                                attended=True)

    def outputs_of(self, call: Optional[Call], inputs: Sequence[torch.Tensor]) -> Tuple[torch.Tensor, ...]:
        return self._move_outputs(self.call_forward(inputs) if call is None else Client.outputs(call), inputs)

    def _at_endpoint(self) -> Optional[Client]:
        if self._client is None and self._endpoint is not None:
            self._client = Client(self._endpoint, compression=self.compression)
        return self._client

    def call_backward(self, inputs: Sequence[torch.Tensor], grad_outputs: Sequence[torch.Tensor],
                      requires_grad: Optional[Sequence[bool]] = None) -> Tuple[torch.Tensor, ...]:
        """The gradients of the inputs that requires_grad says, in their order; None: of all."""
        return self._call(inputs, grad_outputs, self.backward_timeout, requires_grad)

    def _call(self, inputs: Sequence[torch.Tensor], grad_outputs: Optional[Sequence[torch.Tensor]],
              timeout: float, requires_grad: Optional[Sequence[bool]] = None) -> Tuple[torch.Tensor, ...]:
        client = self._at_endpoint()
        if client is not None:
            begun = client.start_forward(self.uid, inputs, timeout=timeout, retry_for=self.retry_for, attended=True) \
                if grad_outputs is None else \
                client.start_backward(self.uid, inputs, grad_outputs, requires_grad=requires_grad, timeout=timeout,
                                      retry_for=self.retry_for, attended=True)
            return client.outputs(begun)
        codec = self.compression
        end = time.monotonic() + timeout
        give_up = min(end, time.monotonic() + self.retry_for)
        fresh = False
        while True:
            endpoints = self.endpoints(fresh)
            left = end - time.monotonic()
            error: ExpertdError = NotFound("no live server hosts it", uid=self.uid)
            if endpoints and left > 0:
                task = Task(self.uid, endpoints, inputs, grad_outputs, timeout=left, retry_for=self.retry_for, patient=False,
                            compression=codec, requires_grad=requires_grad)
                try:
                    return task.start().outputs()
                except (Unavailable, NotFound, ResourceExhausted) as refused:
                    error = refused
            if not error.not_applied or time.monotonic() + _PAUSE >= give_up:
                raise error
            time.sleep(_PAUSE)
            fresh = True


def _as_floats(outputs: Tuple[torch.Tensor, ...], dtype: torch.dtype) -> Tuple[torch.Tensor, ...]:
    for output in outputs:
        if output.dtype != dtype:
            return tuple([one.to(dtype) if one.dtype.is_floating_point else one for one in outputs])
    return outputs


def _in_order(uid: str, schema: Sequence[Field], args: Sequence[torch.Tensor],
              kwargs: Dict[str, torch.Tensor]) -> List[torch.Tensor]:
    def refused(problem: str) -> TypeError:
        return TypeError(f"{uid} takes {len(schema)} inputs ({', '.join(map(str, schema))}): {problem}")
    inputs = list(args)
    if kwargs or len(args) != len(schema):
        if len(args) > len(schema):
            raise refused(f"{len(args)} were given")
        for field in schema[len(args):]:
            if field.name not in kwargs:
                raise refused(f"{field.name!r} is missing")
            inputs.append(kwargs[field.name])
        surplus = set(kwargs) - {field.name for field in schema[len(args):]}
        if surplus:
            raise refused(f"there is no further input {sorted(surplus)[0]!r}")
    for tensor in inputs:
        if not isinstance(tensor, torch.Tensor):
            raise refused(f"they are tensors, and {type(tensor).__name__} was given")
    return inputs


class _RemoteCall(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, expert: RemoteExpert, *inputs: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        call = expert.start_forward(inputs)
        try:  # what can be done while it is under way costs no time
            ctx.expert, ctx.tags = expert, tags.current()
            ctx.save_for_backward(*inputs)
            outputs = expert.outputs_of(call, inputs)
        except BaseException:
            if call is not None:
                call.cancel()
            raise
        ctx.output_dtypes = [output.dtype for output in outputs]
        numbers = [output for output in outputs if not output.dtype.is_floating_point]
        if numbers:
            ctx.mark_non_differentiable(*numbers)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> Tuple[Any, ...]:
        inputs, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]  # false for what is no float
        grads = [grad.to(dtype) for grad, dtype in zip(grad_outputs, ctx.output_dtypes)]
        if tags.current() is tags.NONE and ctx.tags is not tags.NONE:
            with tags.under(ctx.tags):
                came = ctx.expert.call_backward(inputs, grads, wanted)
        else:
            came = ctx.expert.call_backward(inputs, grads, wanted)
        return (None, None, *(None if grad is None else to_device([grad], tensor.device)[0]
                              for grad, tensor in zip(spread(came, wanted, ctx.expert.uid), inputs)))
