"""CURVE keys of connections: the server's, which proves that it is the one that is meant, and the own pair, by which it
knows who asks. They come from use(), or else from the environment: EXPERTD_SERVER_KEY is the server's public key (40
characters of Z85) or the path of its certificate, EXPERTD_KEY_FILE the path of the own one (`expertctl keygen`), with
FILE_secret beside it. Without a server's key, connections are plain."""
from __future__ import annotations

import os
from typing import Any, Dict, Optional, Tuple

import zmq
import zmq.auth
import zmq.utils.z85

__all__ = ["use"]

_Z85_KEY = 40
_learned: Dict[str, str] = {}  # by endpoint
_used: Tuple[Optional[str], Optional[str]] = (None, None)


def use(server_key: Optional[str], key_file: Optional[str] = None) -> None:
    """Of connections that are made from now on; None: what the environment says."""
    global _used
    _load(server_key, key_file)
    _used = (server_key, key_file)


def _load(server_key: Optional[str], key_file: Optional[str]) -> Optional[Tuple[bytes, bytes, bytes]]:
    server_key = server_key or os.environ.get("EXPERTD_SERVER_KEY")
    key_file = key_file or os.environ.get("EXPERTD_KEY_FILE")
    if not server_key:
        return None
    server = server_key.encode()
    if len(server) != _Z85_KEY or os.path.exists(server_key):
        server = zmq.auth.load_certificate(server_key)[0]
    if not key_file:
        public, secret = zmq.curve_keypair()
        return server, public, secret
    public, secret = zmq.auth.load_certificate(key_file + "_secret")
    if secret is None:
        raise ValueError(f"{key_file}_secret has no secret key")
    return server, public, secret


def learn(endpoint: str, curve_key: bytes) -> None:
    """What the DHT says of the key that a server proves at an endpoint."""
    if len(curve_key) == 32:
        _learned.setdefault(endpoint, zmq.utils.z85.encode(curve_key).decode())


def same(endpoint: str, other: str) -> None:
    """The server at `endpoint` has the key of the one at `other`: it is the same server."""
    if other in _learned:
        _learned.setdefault(endpoint, _learned[other])


def apply(socket: Any, endpoint: str) -> None:
    """To a socket that is not connected yet."""
    server_key, key_file = _used
    loaded = _load(_learned.get(endpoint, server_key), key_file)
    if loaded:
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = loaded
