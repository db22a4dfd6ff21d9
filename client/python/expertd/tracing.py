"""torch.fx's trace of a module, with the path of the module that each operation belongs to."""
from __future__ import annotations

import dis
import inspect
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import fx, nn

__all__ = ["ExportError", "Refused", "inner_path", "trace"]


class ExportError(ValueError):
    """The server has no layers for it. `path`: of the module, within the exported one; "": that one itself."""

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path or 'the module itself'}: {reason}")
        self.path, self.reason = path, reason


class Refused(Exception):
    """A reason, whose path is known further out."""


def _encoder_layer(self: Any, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, **options: Any) -> Any:
    """nn.TransformerEncoderLayer without its choice of a fast path, which cannot be traced."""
    if src_mask is not None or options.get("is_causal"):
        raise Refused("the server's attention takes masks of keys (src_key_padding_mask) alone")

    def attend(x: Any) -> Any:
        return self.dropout1(self.self_attn(x, x, x, key_padding_mask=src_key_padding_mask, need_weights=False)[0])

    def feed(x: Any) -> Any:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))
    if self.norm_first:
        src = src + attend(self.norm1(src))
        return src + feed(self.norm2(src))
    src = self.norm1(src + attend(src))
    return self.norm2(src + feed(src))


def _unpacked(proxy: Any) -> Any:
    """What `rows, tokens, size = x.shape` gets, and a loop over x.chunk(3). torch.fx does the first by itself, but not in all
    versions with all of Python's."""
    frame: Any = inspect.currentframe()
    caller = frame.f_back.f_back
    for instruction in dis.get_instructions(caller.f_code):
        if instruction.offset == caller.f_lasti and instruction.opname == "UNPACK_SEQUENCE":
            return iter([proxy[i] for i in range(instruction.argval)])
    if isinstance(proxy, fx.Proxy) and proxy.node.target in ("chunk", torch.chunk):
        count = proxy.node.kwargs.get("chunks", proxy.node.args[1] if len(proxy.node.args) > 1 else None)
        if isinstance(count, int):
            return iter([proxy[i] for i in range(count)])
    return proxy.tracer.iter(proxy)


class _Proxy(fx.Proxy):
    def __iter__(self) -> Any:
        return _unpacked(self)

    def __getattr__(self, name: str) -> Any:
        return _Attribute(self, name)


class _Attribute(fx.proxy.Attribute):
    def __iter__(self) -> Any:
        return _unpacked(self)


class _Tracer(fx.Tracer):
    """Remembers of each operation which module it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: List[str] = []
        self.paths: Dict[str, str] = {}
        self.failed: Optional[str] = None

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        path = self.path_of_module(m)
        self.stack.append(path)
        try:
            if isinstance(m, nn.TransformerEncoderLayer):
                return _encoder_layer(m, *args, **kwargs)
            return super().call_module(m, forward, args, kwargs)
        except BaseException:
            self.failed = self.failed if self.failed is not None else path
            raise
        finally:
            self.stack.pop()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.paths[node.name] = self.stack[-1] if self.stack else ""
        return node


# Make tensors of sizes alone, by which torch.fx does not notice that these are traced.
_FACTORIES = ("arange", "linspace", "zeros", "ones", "full", "eye", "tensor")


def _proxy_in(args: Any) -> Optional[fx.Proxy]:
    for one in args.values() if isinstance(args, dict) else args:
        found = one if isinstance(one, fx.Proxy) else _proxy_in(one) if isinstance(one, (tuple, list, dict)) else None
        if found is not None:
            return found
    return None


@contextmanager
def _traced_factories() -> Iterator[None]:
    originals = {name: getattr(torch, name) for name in _FACTORIES}

    def traced(original: Callable[..., Any]) -> Callable[..., Any]:
        def factory(*args: Any, **kwargs: Any) -> Any:
            proxy = _proxy_in([args, kwargs])
            return original(*args, **kwargs) if proxy is None else proxy.tracer.create_proxy("call_function", original, args, kwargs)
        return factory
    try:
        for name, original in originals.items():
            setattr(torch, name, traced(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(torch, name, original)


def trace(module: nn.Module, names: Sequence[str], keywords: Sequence[str]) -> Tuple[fx.GraphModule, Dict[str, str]]:
    """The trace, and each node's module. The module is traced inside of another one, so that it may be a layer itself,
    and arguments that are not given keep their defaults."""
    outer = fx.Graph()
    given = [outer.placeholder(name) for name in names]
    positional = len(names) - len(keywords)
    outer.output(outer.call_module("module", tuple(given[:positional]), dict(zip(keywords, given[positional:]))))
    root = fx.GraphModule({"module": module}, outer)
    tracer = _Tracer()
    try:
        with _traced_factories():
            graph = tracer.trace(root)
        traced = fx.GraphModule(root, graph)
        traced.graph.eliminate_dead_code()
    except Refused as refused:
        raise ExportError(inner_path(tracer.failed or ""), str(refused)) from None
    except Exception as error:
        raise ExportError(inner_path(tracer.failed or ""), f"torch.fx cannot trace it: {error}") from error
    return traced, {name: inner_path(path) for name, path in tracer.paths.items()}


def inner_path(path: str) -> str:
    return path[len("module."):] if path.startswith("module.") else "" if path == "module" else path
