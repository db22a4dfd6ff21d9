"""The Python client of expertd, a server for the experts of a mixture-of-experts.

    expert = expertd.RemoteExpert("ffn.0.0", "tcp://127.0.0.1:31330")
    y = expert(x)
    y.sum().backward()

docs/python.md is the guide; docs/from-hivemind.md is for those who come from hivemind."""
from . import built_in, credit, keys, local
from .beam import MoEBeamSearcher
from .client import Client
from .declaration import Exported
from .dht import DHT
from .errors import (Aborted, AlreadyExists, DeadlineExceeded, ExpertdError, Internal, InvalidArgument, NotFound,
                     PermissionDenied, ResourceExhausted, Unavailable, Unimplemented)
from .expert import RemoteExpert
from .exporting import ExportError, export
from .info import ExpertInfo, Field, ListEntry, Pong
from .mixture import RemoteMixtureOfExperts, RemoteSwitchMixtureOfExperts
from .offload import OffloadedExperts, offload_experts
from .registry import add_custom_models_from_file, register_expert_class
from .safetensors import load_tensors, save_tensors
from .server import (PeerInfo, Server, background_server, declare_experts, get_experts, schedule_name_to_scheduler)
from .table import top
from .tags import tagged
from .uid import is_valid_prefix, is_valid_uid, split_uid

__version__ = "0.1.0"

__all__ = [
    "Aborted", "AlreadyExists", "Client", "DHT", "DeadlineExceeded", "ExpertInfo", "ExpertdError", "ExportError",
    "Exported", "Field", "Internal", "InvalidArgument", "ListEntry", "MoEBeamSearcher", "NotFound", "OffloadedExperts", "PeerInfo", "Pong",
    "RemoteExpert", "RemoteMixtureOfExperts", "RemoteSwitchMixtureOfExperts", "ResourceExhausted", "Server",
    "Unavailable", "Unimplemented", "add_custom_models_from_file", "background_server", "built_in",
    "declare_experts", "export",
    "get_experts", "is_valid_prefix", "is_valid_uid", "load_tensors", "offload_experts", "register_expert_class", "save_tensors",
    "schedule_name_to_scheduler", "split_uid", "tagged", "top",
]
