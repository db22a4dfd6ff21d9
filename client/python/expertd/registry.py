"""Experts of a program's own classes: register_expert_class, as hivemind has it. A server hosts them as blocks of its
layers (export())."""
from __future__ import annotations

import importlib.util
import os
import zlib
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple, Type, TypeVar, Union

import torch

from . import built_in
from .declaration import Exported
from .errors import InvalidArgument
from .exporting import export

__all__ = ["Hosted", "add_custom_models_from_file", "hosted", "name_to_block", "name_to_input",
           "register_expert_class"]

# What expert_cls= may name: the server's own blocks, of which modules are beside them, and classes that were registered.
name_to_block: Dict[str, Any] = dict(built_in.classes)
name_to_input: Dict[str, Callable[[int, int], Any]] = dict(built_in.samples)
_EXAMPLE_ROWS = 3
Class = TypeVar("Class", bound=Type[torch.nn.Module])


def register_expert_class(name: str, sample_input: Callable[[int, int], Any]) -> Callable[[Class], Class]:
    """A decorator of nn.Modules: Server.create(expert_cls=name) hosts experts of the class, each with the weights of a
    cls(hidden_dim) of its own. sample_input(rows, hidden_dim) is a tensor or a tuple of them, as forward() takes them.
    RuntimeError for a name that is taken; what the server has no layers for is refused by Server.create (see export())."""
    if not name or len(name) > 31 or "/" in name or " " in name:
        raise InvalidArgument(f"{name!r}: the name of a block has 1 to 31 characters, no / and no blank")

    def register(cls: Class) -> Class:
        if name in name_to_block:
            raise RuntimeError(f"there is a class or a block {name} already")
        name_to_block[name], name_to_input[name] = cls, sample_input
        return cls
    return register


def add_custom_models_from_file(path: str) -> None:
    """Runs a Python file, which registers classes."""
    spec = importlib.util.spec_from_file_location("custom_module", os.path.abspath(path))
    if spec is None or spec.loader is None:
        raise InvalidArgument(f"{path} is no Python file")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


class Hosted(NamedTuple):
    """A block, and what its experts begin with: weights(uid, seed) are those of one of them."""
    exported: Exported
    weights: Callable[[str, int], Dict[str, torch.Tensor]]


def hosted(expert_cls: Union[str, Type[torch.nn.Module], Exported], hidden_dim: int) -> Tuple[str, Optional[Hosted]]:
    """The block's name, and None for what is the server's business: its own blocks, those of the configuration, paths. A class makes
    a module for each expert, whose random numbers begin with the seed and the uid; what was exported, all the same."""
    if isinstance(expert_cls, Exported):
        given = expert_cls.weights
        return expert_cls.name, Hosted(expert_cls, lambda uid, seed: given)
    if isinstance(expert_cls, str):
        name = expert_cls
    else:
        found = [known for known, cls in name_to_block.items() if cls is expert_cls]
        if not found:
            raise InvalidArgument(f"{getattr(expert_cls, '__name__', expert_cls)!r} was not registered (register_expert_class); a module "
                                  "can be given as export(module, example_inputs)")
        name = found[0]
    if name in built_in.classes or name not in name_to_block:
        return name, None
    cls = name_to_block[name]
    with torch.random.fork_rng(devices=[]):
        exported = export(cls(hidden_dim), name_to_input[name](_EXAMPLE_ROWS, hidden_dim), name=name)
    exported.hidden_dim = hidden_dim

    def weights(uid: str, seed: int) -> Dict[str, torch.Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((seed * 0x9E3779B1 + zlib.crc32(uid.encode())) % (1 << 63))
            return exported.weights_of(cls(hidden_dim))
    return name, Hosted(exported, weights)
