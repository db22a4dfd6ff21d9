"""The Python client of expertd, a server for the experts of a mixture-of-experts.

    expert = expertd.RemoteExpert("ffn.0.0", "tcp://127.0.0.1:31330")
    y = expert(x)
    y.sum().backward()

docs/python.md is the guide; docs/from-hivemind.md is for those who come from hivemind."""
from .beam import MoEBeamSearcher
from .client import Client
from .dht import DHT
from .errors import (Aborted, AlreadyExists, DeadlineExceeded, ExpertdError, Internal, InvalidArgument, NotFound,
                     ResourceExhausted, Unavailable, Unimplemented)
from .expert import RemoteExpert
from .info import ExpertInfo, Field, ListEntry, Pong
from .mixture import RemoteMixtureOfExperts, RemoteSwitchMixtureOfExperts
from .server import (PeerInfo, Server, background_server, declare_experts, get_experts, schedule_name_to_scheduler)
from .table import top
from .uid import is_valid_prefix, is_valid_uid, split_uid

__version__ = "0.1.0"

__all__ = [
    "Aborted", "AlreadyExists", "Client", "DHT", "DeadlineExceeded", "ExpertInfo", "ExpertdError", "Field", "Internal",
    "InvalidArgument", "ListEntry", "MoEBeamSearcher", "NotFound", "PeerInfo", "Pong", "RemoteExpert",
    "RemoteMixtureOfExperts", "RemoteSwitchMixtureOfExperts", "ResourceExhausted", "Server", "Unavailable",
    "Unimplemented", "background_server", "declare_experts", "get_experts", "is_valid_prefix", "is_valid_uid",
    "schedule_name_to_scheduler", "split_uid", "top",
]
