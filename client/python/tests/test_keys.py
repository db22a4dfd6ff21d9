"""Whom a client takes for the server, and who it is itself: keys from use(), the environment and files, the roles that a
server gives them, and who is refused. The server's shared memory is off: there the kernel says who somebody is."""
import os
import subprocess
import time
from contextlib import contextmanager

import pytest
import torch

import expertd
from conftest import PATIENCE, ffn, make_server
from expertd import keys
from expertd import transport as connections

X = torch.ones(2, 16)


def keygen(path, *options):
    """The public key."""
    program = os.path.join(os.environ["EXPERTD_BIN_DIR"], "expertctl")
    return subprocess.run([program, "keygen", str(path), *options], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def anew():
    """A process that has no connections yet, and was told no keys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "_transport", connections.Transport())
        patch.setattr(keys, "_used", (None, None))
        for name in ("_learned", "_inherited"):
            patch.setattr(keys, name, {})
        for name in ("EXPERTD_SERVER_KEY", "EXPERTD_KEY_FILE"):
            patch.delenv(name, raising=False)
        try:
            yield patch
        finally:
            connections._transport.close()


class Guarded:
    def __init__(self, folder):
        self.folder = folder
        (folder / "clients").mkdir()
        self.key, self.other_key = keygen(folder / "server"), keygen(folder / "other")
        for role in ("reader", "trainer", "operator"):
            keygen(folder / role, "--role", role)
            os.link(folder / role, folder / "clients" / role)
        keygen(folder / "stranger")
        with anew():
            keys.use(self.key, self.file("operator"))
            self.server = make_server([ffn("learner.0", optimizer="sgd")], frontend={"local": "off"},
                                      server={"key_file": self.file("server"), "clients": self.file("clients")},
                                      checkpoint={"dir": self.file("checkpoints"), "interval": 0})
        self.endpoint = self.server.endpoint

    def file(self, name):
        return str(self.folder / name)

    def client(self, **options):
        return expertd.Client(self.endpoint, timeout=PATIENCE, **{"retry_for": PATIENCE, **options})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    made = Guarded(tmp_path_factory.mktemp("keys"))
    with made.server:
        yield made


ROLES = ["reader", "trainer", "operator"]
CALLS = {  # and the least role that may
    "backward": (lambda client: client.backward("learner.0", [X], [X]), "trainer"),
    "stats": (lambda client: client.stats(), "trainer"),
    "checkpoint": (lambda client: client.checkpoint("learner.0"), "operator"),
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_so_much_and_what_it_may_not_is_permission_denied(guarded, role):
    with anew():
        keys.use(guarded.key, guarded.file(role))
        client = guarded.client()
        assert client.ping().experts == 1 and len(client.list()) == 1
        before = client.info("learner.0").update_count
        for name, (call, least) in CALLS.items():
            if ROLES.index(role) >= ROLES.index(least):
                call(client)
                continue
            with pytest.raises(expertd.PermissionDenied) as caught:
                call(client)
            assert isinstance(caught.value, PermissionError), name
            assert caught.value.status == 7 and caught.value.not_applied and role in caught.value.message, name
        applied = client.info("learner.0").update_count - before
        assert applied == (role != "reader") and torch.isfinite(client.forward("learner.0", [X])[0]).all()


def test_a_readers_backward_pass_is_permission_denied_and_nothing_is_learned(guarded):
    with anew():
        keys.use(guarded.key, guarded.file("reader"))
        expert = expertd.RemoteExpert("learner.0", guarded.endpoint, timeout=PATIENCE)
        before = guarded.client().info("learner.0").update_count
        with pytest.raises(expertd.PermissionDenied):
            expert(X.clone().requires_grad_()).sum().backward()
        assert guarded.client().info("learner.0").update_count == before


@pytest.mark.parametrize("by", ["key", "file"])
def test_keys_come_from_the_environment_and_use_goes_before(guarded, by):
    server, other = (guarded.key, guarded.other_key) if by == "key" else (guarded.file("server"), guarded.file("other"))
    with anew() as patch:
        patch.setenv("EXPERTD_SERVER_KEY", server)
        patch.setenv("EXPERTD_KEY_FILE", guarded.file("trainer"))
        assert guarded.client().stats()["frontend.handshakes.refused"] >= 0
    with anew() as patch:
        patch.setenv("EXPERTD_SERVER_KEY", other)
        patch.setenv("EXPERTD_KEY_FILE", guarded.file("stranger"))
        keys.use(server, guarded.file("trainer"))
        assert guarded.client().stats()["frontend.handshakes.refused"] >= 0


STRANGERS = {
    "without keys": (None, None, "asks for keys"),
    "with a key of its own": ("server", None, "does not know this client's key"),
    "with a key that is in no certificate": ("server", "stranger", "does not know this client's key"),
    "of another server": ("other", "trainer", "not the one with that key"),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_who_is_not_let_in_gets_unavailable_and_is_told_why(guarded, who):
    server, own, why = STRANGERS[who]
    with anew():
        if server:
            keys.use(guarded.file(server), guarded.file(own) if own else None)
        client, end = guarded.client(retry_for=0.5), time.monotonic() + PATIENCE
        while True:  # on a busy machine its patience may be over before the handshake has failed
            with pytest.raises(expertd.Unavailable) as caught:
                client.backward("learner.0", [X], [X])
            assert caught.value.status == 14 and caught.value.not_applied
            if why in str(caught.value):
                break
            assert time.monotonic() < end, caught.value


def test_a_key_that_cannot_be_read_is_said_at_once_and_changes_nothing(guarded, tmp_path):
    with anew() as patch:
        keys.use(guarded.key, guarded.file("trainer"))
        before = keys._used
        os.link(guarded.file("reader"), tmp_path / "public_secret")  # which has no secret key
        for server, own, kind in ((guarded.key, str(tmp_path / "nowhere"), OSError), (str(tmp_path / "nowhere"), None, OSError),
                                  (guarded.key, str(tmp_path / "public"), ValueError), ("~" * 40, None, ValueError)):
            with pytest.raises(kind):
                keys.use(server, own)
            assert keys._used == before
        patch.setattr(keys, "_used", (None, None))
        patch.setenv("EXPERTD_SERVER_KEY", "~" * 40)
        with pytest.raises(ValueError, match="EXPERTD_SERVER_KEY|40 characters"):
            guarded.client()


def test_the_dht_is_asked_with_keys_and_tells_the_servers(guarded):
    listen = guarded.server.config["dht"]["listen"]
    with anew():
        keys.use(guarded.key, guarded.file("reader"))
        expert, = expertd.get_experts(expertd.DHT(listen), ["learner.0"])
        assert keys._learned == {guarded.endpoint: guarded.key}
        assert torch.isfinite(expert(X)).all()
    with anew():
        with pytest.raises(expertd.ExpertdError):
            expertd.DHT(listen).resolve(["learner.0"], timeout=1.0)
