"""Attention, as a module, as functions or written out; and the parts, forms and products of values that it begins with."""
from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import fx, nn

from ..declaration import Source
from ..tracing import Refused
from .functions import rounded
from .operations import Operations, arguments, join
from .values import Mask, Normalized, Scores, Value, scaled_by, without_factor

__all__ = ["Attention"]


class Attention(Operations):
    def _attention_module(self, m: nn.MultiheadAttention, path: str, args: Sequence[Any], kwargs: Mapping[str, Any],
                          n: fx.Node) -> Any:
        names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")
        given = {**dict(zip(names, args)), **kwargs}
        if given.get("attn_mask") is not None or given.get("is_causal"):
            raise Refused("the server's attention takes masks of keys (key_padding_mask) alone")
        if m.bias_k is not None or m.add_zero_attn:
            raise Refused("the server's attention has no added keys (add_bias_kv, add_zero_attn)")
        q, k, v = (given[name] for name in names[:3])
        layout = "rows" if m.batch_first else "tokens first"
        for x in (q, k, v):
            if not isinstance(x, Value) or x.layout != layout:
                raise Refused("the attention's inputs are not [rows, tokens, size]" if m.batch_first else
                               "with batch_first=False the attention's inputs are [tokens, rows, size]: x.transpose(0, 1)")
        bias = m.in_proj_bias is not None
        inner = {"init": "xavier", **_bias_options(bias)}
        size = m.embed_dim
        if q == k == v and m.in_proj_weight is not None:
            sources = {"weight": Source(join(path, "in_proj_weight"))}
            if bias:
                sources["bias"] = Source(join(path, "in_proj_bias"))
            operands = [self.block.add("linear", join(path, "in_proj"), [q], {"size": 3 * size, **inner}, sources)]
        else:
            operands = []
            for i, (letter, x) in enumerate(zip("qkv", (q, k, v))):
                own = getattr(m, f"{letter}_proj_weight")
                sources = {"weight": Source(join(path, "in_proj_weight"), i * size, (i + 1) * size) if own is None else
                           Source(join(path, f"{letter}_proj_weight"))}
                if bias:
                    sources["bias"] = Source(join(path, "in_proj_bias"), i * size, (i + 1) * size)
                operands.append(self.block.add("linear", join(path, f"{letter}_proj"), [x], {"size": size, **inner}, sources))
        attended = self._attention(path or "attention", operands, m.num_heads, given.get("key_padding_mask"))
        out = self.block.add("linear", join(path, "out_proj"), [attended],
                          {"size": size, **_bias_options(m.out_proj.bias is not None)},
                          {"weight": Source(join(path, "out_proj.weight")),
                           **({"bias": Source(join(path, "out_proj.bias"))} if m.out_proj.bias is not None else {})})
        return (out._replace(layout=layout), None)

    def _attention(self, name: str, operands: List[Value], heads: int, mask: Any) -> Value:
        options: Dict[str, Any] = {"heads": heads}
        if mask is not None:
            if not isinstance(mask, Mask) or mask.inverted or self.inputs[mask.name].dtype != torch.bool:
                raise Refused("the mask of the attention must be a bool input, true for a key to be left out")
            options["mask"] = mask.name
        return self.block.add("attention", name, operands, options, {})

    def _sdpa(self, n: fx.Node, args: List[Any], kwargs: Dict[str, Any]) -> Value:
        q, k, v, mask, _, causal, scale = arguments(
            ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale"), args, kwargs)
        if causal:
            raise Refused("the server's attention is not causal")
        if not all(isinstance(x, Value) and x.layout == "heads" for x in (q, k, v)):
            raise Refused("the attention's inputs are not [rows, heads, tokens, size of a head]")
        if mask is not None:
            if not isinstance(mask, Mask):
                raise Refused("the mask of the attention must be a bool input")
            mask = mask._replace(inverted=not mask.inverted)  # there true is for a key that takes part
        return self._heads(n, q, k, v, 1 / math.sqrt(self._shape(n.args[0])[-1]) if scale is None else scale, mask)

    def _heads(self, n: fx.Node, q: Value, k: Value, v: Value, scale: float, mask: Optional[Mask]) -> Value:
        width = self.env[n.args[1]].shape[-1] if isinstance(n.args[1], fx.Node) else 0
        if len({x.heads for x in (q, k, v)}) != 1:
            raise Refused("the server's attention has as many heads for queries, keys and values")
        if abs(scale * math.sqrt(width) - 1) > 1e-5:  # it divides the scores by the root of a head's size
            q = scaled_by(q, rounded(scale * math.sqrt(width)))
        third = width * q.heads
        parts = [x.part for x in (q, k, v)]
        if q.function is k.function is v.function is None and parts == [(i * third, (i + 1) * third, 3 * third) for i in range(3)] and q.name == k.name == v.name:
            operands = [q._replace(layout="rows", heads=0, part=None)]
        else:
            operands = [x._replace(layout="rows", heads=0) for x in (q, k, v)]
        return self._attention(n.name, operands, q.heads, mask)._replace(layout="heads", heads=q.heads)

    # ---- parts, forms and products

    def _parts(self, n: fx.Node, x: Value, concrete: Any) -> Any:
        begin, parts = 0, []
        for part in concrete:
            parts.append(self._part(n, x, begin, part))
            begin += part.shape[-1]
        return tuple(parts)

    def _slice(self, n: fx.Node, name: str, x: Value, concrete: Any) -> Value:
        """y[..., begin:end], and what else takes columns that lie behind each other."""
        size = self._shape(n.args[0])[-1]
        marked = torch.arange(size).expand(self._shape(n.args[0]))
        args, kwargs = fx.node.map_arg((n.args[1:], {k: v for k, v in n.kwargs.items() if k != "input"}), lambda x: self.env[x])
        columns = marked[args[0]] if name == "getitem" else torch.narrow(marked, *args, **kwargs)
        columns = columns.reshape(-1, columns.shape[-1])[0].tolist() if columns.dim() and columns.numel() else []
        if not columns or columns != list(range(columns[0], columns[-1] + 1)) or columns[-1] - columns[0] + 1 != concrete.shape[-1]:
            raise Refused("of slices the server has those of the last dimension that leave out nothing in between")
        return self._part(n, x, columns[0], concrete)

    def _part(self, n: fx.Node, x: Value, begin: int, concrete: Any) -> Value:
        before = self._shape(n.args[0])
        if concrete.shape[:-1] != before[:-1] or x.layout not in ("rows", "tokens first"):
            raise Refused("of parts of values the server has those of the last dimension")
        end, size = begin + concrete.shape[-1], before[-1]
        if x.part is not None:
            begin, end, size = begin + x.part[0], end + x.part[0], x.part[2]
        return x._replace(part=None if end - begin == size else (begin, end, size))

    def _form(self, name: str, n: fx.Node, x: Any, concrete: Any) -> Any:
        before, after = self._shape(n.args[0]), tuple(concrete.shape)
        if not isinstance(x, (Value, Scores, Normalized)):
            raise Refused(f"the server has no layer for {name}() of this")
        moves = name in ("transpose", "swapaxes", "permute", "movedim")
        if not moves and before == after:
            return x
        if isinstance(x, Value):
            order = self._order(n, len(before)) if moves else None
            steps = {("rows", (1, 0, 2)): "tokens first", ("tokens first", (1, 0, 2)): "rows", ("split", (0, 2, 1, 3)): "heads",
                     ("heads", (0, 2, 1, 3)): "split", ("heads", (0, 1, 3, 2)): "turned", ("split", (0, 2, 3, 1)): "turned",
                     ("turned", (0, 1, 3, 2)): "heads"}
            if order is not None and order == tuple(range(len(before))):
                return x
            if order is not None and (x.layout, order) in steps:
                return x._replace(layout=steps[x.layout, order])
            if order is not None and len(order) > 2 and order == (*range(len(order) - 2), len(order) - 1, len(order) - 2) \
                    and x.layout in ("rows", "turned rows"):
                return x._replace(layout="turned rows" if x.layout == "rows" else "rows")
            if not moves and x.layout == "rows" and len(after) == 4 and after[:2] == before[:2] and len(before) == 3:
                return x._replace(layout="split", heads=after[2])
            if not moves and x.layout == "split" and len(after) == 3 and after[:2] == before[:2]:
                return x._replace(layout="rows", heads=0)
        raise Refused(f"{name}() from {list(before)} to {list(after)}: the server's layers keep a row's shape, but for the heads of "
                       "attention")

    def _order(self, n: fx.Node, dims: int) -> Tuple[int, ...]:
        """Which dimension comes to each place."""
        marked = torch.empty([i + 2 for i in range(dims)])
        args, given = fx.node.map_arg((n.args[1:], n.kwargs), lambda x: self.env[x])
        kwargs = {key: value for key, value in given.items() if key != "input"}
        target: Any = getattr(marked, n.target) if n.op == "call_method" else lambda *a, **k: n.target(marked, *a, **k)  # type: ignore[operator,arg-type]
        return tuple(size - 2 for size in target(*args, **kwargs).shape)

    def _matmul(self, a: Any, b: Any, n: fx.Node) -> Any:
        if isinstance(a, Value) and isinstance(b, Value) and a.layout == "heads" and b.layout == "turned":
            factor_a, a = without_factor(a)
            factor_b, b = without_factor(b)
            return Scores(a, b._replace(layout="heads"), factor_a * factor_b)
        if isinstance(a, Scores) and a.form == "shares" and isinstance(b, Value) and b.layout == "heads":
            return self._heads(n, a.q, a.k, b, a.scale, a.mask)
        if isinstance(a, Scores) and a.form == "scores" and a.mask is None:  # without a softmax they are a product like others
            operands = [x._replace(layout="rows", heads=0) for x in (a.q, a.k)]
            made = self.block.add("matmul", "scores", operands, {"heads": a.q.heads, "transpose": "second", **_unless_one("scale", a.scale)}, {})
            a = made._replace(layout="heads", heads=a.q.heads)
        if isinstance(a, Value) and isinstance(b, Value) and len(self._shape(n.args[0])) == len(self._shape(n.args[1])) > 2:
            factor_a, a = without_factor(a)
            factor_b, b = without_factor(b)
            options = _unless_one("scale", factor_a * factor_b)
            if a.layout == b.layout == "heads" and a.heads == b.heads:
                operands = [x._replace(layout="rows", heads=0) for x in (a, b)]
                return self.block.add("matmul", n.name, operands, {"heads": a.heads, **options}, {})._replace(layout="heads", heads=a.heads)
            if a.layout == "rows" and b.layout in ("rows", "turned rows"):
                turned = {"transpose": "second"} if b.layout == "turned rows" else {}
                return self.block.add("matmul", n.name, [a, b._replace(layout="rows")], {**turned, **options}, {})
        raise Refused("of products the server has those with weights (linear), of two values element by element (multiply) or matrix by "
                       "matrix (matmul), and those in attention")


def _unless_one(option: str, number: float) -> Dict[str, Any]:
    return {} if abs(number - 1) < 1e-9 else {option: number}


def _bias_options(there: bool) -> Dict[str, Any]:
    """What nn.MultiheadAttention's linear layers begin with."""
    return {"bias_init": "zero"} if there else {"bias": False}
