"""CURVE keys of connections: the server's, which proves that it is the one that is meant, and the own pair, by which it
knows who asks. They come from use(), or else from the environment: EXPERTD_SERVER_KEY is the server's public key (40
characters of Z85) or the path of its certificate, EXPERTD_KEY_FILE the path of the own one (`expertctl keygen`), with
FILE_secret beside it. Without a server's key, connections are plain."""
from __future__ import annotations

import os
import struct
from typing import Any, Dict, Optional, Tuple

import zmq
import zmq.auth
import zmq.utils.z85

__all__ = ["use"]

_Z85_KEY = 40
_learned: Dict[str, str] = {}  # by endpoint
_inherited: Dict[str, str] = {}  # the same, as another server says: what is learned goes before
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
    try:
        zmq.utils.z85.decode(server)
    except (KeyError, ValueError, struct.error):
        raise ValueError(f"{server_key!r} is neither a server's public key, 40 characters of Z85, nor the path of its certificate") from None
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


def same(endpoint: str, other: str, other_key: bytes) -> bool:
    """The server at `other`, which has proved that key (b"": none), says that the one at `endpoint` is the same server, so
    that it has the same key. False: it has another."""
    if endpoint in _learned:
        return _learned[endpoint].encode() == other_key
    if other in _learned or other in _inherited:
        _inherited[endpoint] = other_key.decode()
    else:
        _inherited.pop(endpoint, None)
    return True


def is_outdated(endpoint: str, key: bytes) -> bool:
    """Whether another key than this one was learned since."""
    return endpoint in _learned and _learned[endpoint].encode() != key


def apply(socket: Any, endpoint: str) -> bytes:
    """To a socket that is not connected yet. The key that the server has to prove; b"": none."""
    server_key, key_file = _used
    loaded = _load(_learned.get(endpoint) or _inherited.get(endpoint) or server_key, key_file)
    if not loaded:
        return b""
    socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = loaded
    return loaded[0]
