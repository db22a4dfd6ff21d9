#!/usr/bin/python3
# timeout: 1800
"""Strangers in the DHT: 10,000 announcements of nothing under the keys of servers, 1,000 addresses that say nothing when
they are asked, and 200 that lie. What is hosted is found all the same, by readers old and new, and nobody says "nobody"
of it; a reader's memory and its questions stay within bounds. In a network namespace, since strangers have addresses."""
import os
import resource
import socket
import struct
import subprocess
import sys

SPACE = f"expertd-{os.getpid()}-strangers"
if "STRANGERS_SPACE" not in os.environ:
    def ip(*arguments):
        return subprocess.run(["ip", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    try:
        made = ip("netns", "add", SPACE)
    except FileNotFoundError:
        made = False
    if not made or not ip("netns", "exec", SPACE, "true"):
        if made:
            ip("netns", "delete", SPACE)
        print("skipped: this machine lets us make no network namespace (Debian: iproute2; and root)")
        sys.exit(77)
    try:
        # What is in the network of an address of lo's is of this machine: strangers need not be set up one by one.
        ready = ip("-n", SPACE, "link", "set", "lo", "up") and all(
            ip("-n", SPACE, "addr", "add", f"10.9.0.{host}/16", "dev", "lo") for host in range(1, 16))
        if not ready:
            print("the network namespace cannot be set up")
            sys.exit(1)
        sys.exit(subprocess.run(["ip", "netns", "exec", SPACE, sys.executable, *sys.argv],
                                env={**os.environ, "STRANGERS_SPACE": SPACE}).returncode)
    finally:
        ip("netns", "delete", SPACE)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support_dht import *
import ctypes
import hashlib

NETWORK = os.getpid()
SILENT, LIARS, ANNOUNCEMENTS = 1000, 200, 10000
sodium = ctypes.CDLL("libsodium.so.23")
hosts = iter(range(1, 16))


def node(*bootstrap, **options):
    """A directory with an address of its own."""
    host = f"10.9.0.{next(hosts)}"
    made = Dht(*bootstrap, dht_address=host, dht_network_id=NETWORK, **options)
    made.address = f"{host}:{made.port}"
    return made


def rss_mb(dht):
    with open(f"/proc/{dht.process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def cpu_s(dht):
    with open(f"/proc/{dht.process.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- announcements of strangers -----------------------------------------------------------------------------------------

def ask_node(s, where, query, key, more=b"", last=[0]):
    """One question of BitTorrent's DHT; the answer's bytes. Nodes ask back, and late answers come: they are passed over."""
    last[0] = (last[0] + 1) % 65536
    number = b"%04x" % last[0]
    arguments = b"d2:id20:" + hashlib.sha1(s.getsockname()[0].encode()).digest() + b"9:info_hash20:" + key + more + b"e"
    packet = b"d1:a" + arguments + b"1:q%d:%s1:t4:%s1:y1:qe" % (len(query), query, number)
    for _ in range(60):
        s.sendto(packet, where)
        try:
            while True:
                answer = s.recv(65536)
                if b"1:t4:" + number in answer and b"1:y1:r" in answer:
                    return answer
        except socket.timeout:
            pass
    raise AssertionError("a node does not answer")


def announce(nodes, keys, addresses):
    """Each address under one of the keys, at every node."""
    count = 0
    by_host = {}
    for number, (host, port) in enumerate(addresses):
        by_host.setdefault((host, keys[number % len(keys)]), []).append(port)
    for (host, key), ports in by_host.items():
        key = hashlib.sha1(f"expertd {NETWORK} {key}".encode()).digest()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((host, 0))
            s.settimeout(1)
            for where in nodes:
                answer = ask_node(s, where, b"get_peers", key)
                count += len(ports)
                if b"5:token" not in answer:
                    continue  # the node keeps no more under this key
                at = answer.index(b"5:token") + 7
                length, rest = answer[at:].split(b":", 1)
                token = rest[:int(length)]
                for port in ports:
                    ask_node(s, where, b"announce_peer", key, b"4:porti%de5:token%d:%s" % (port, len(token), token))
    return count


# ---- those that are asked ----------------------------------------------------------------------------------------------

def silent():
    """Addresses at which connections are taken, and nothing is ever said."""
    sockets = []
    for number in range(SILENT):
        s = socket.socket()
        s.bind((f"10.9.{20 + number % 50}.1", 0))
        s.listen(64)
        sockets.append(s)
    return sockets


class Liars:
    """Directories of sorts."""

    def __init__(self):
        self.sockets, self.addresses, self.heard = [], [], 0
        self.poller = zmq.Poller()
        for number in range(LIARS):
            s = context.socket(zmq.ROUTER)
            s.linger = 0
            host = f"10.9.{80 + number % 20}.1"
            self.addresses.append((host, s.bind_to_random_port(f"tcp://{host}")))
            self.poller.register(s, zmq.POLLIN)
            self.sockets.append(s)
        self.kinds = {s: number % 6 for number, s in enumerate(self.sockets)}
        self.stopping = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def introduction(self, ask, right=True, network=NETWORK):
        public, secret, signature = (ctypes.create_string_buffer(n) for n in (32, 64, 64))
        sodium.crypto_sign_keypair(public, secret)
        endpoint, started, instance = "tcp://10.9.99.9:1", 1700000000000, os.urandom(16)
        signed = (b"expertd directory 1\0" + ask.challenge + struct.pack(">IQ", ask.network_id, started) + instance +
                  endpoint.encode())
        sodium.crypto_sign_detached(signature, None, signed, ctypes.c_ulonglong(len(signed)), secret)
        tell = dht_pb2.Tell(version=1, network_id=network, expiration_ms=60000)
        tell.introduction.server_id, tell.introduction.instance = public.raw, instance
        tell.introduction.endpoint, tell.introduction.started_ms = endpoint, started
        tell.introduction.signature = signature.raw if right else bytes(64)
        return tell

    def answers(self, kind, frame):
        ask = dht_pb2.Ask.FromString(frame)
        if kind == 0:
            return [os.urandom(200)]
        if kind == 5:
            return [[b""] * 2000]  # one message; it might as well have no end
        if kind == 1:
            return [self.introduction(ask, right=False).SerializeToString()]
        if kind == 2:
            return [self.introduction(ask, network=NETWORK + 1).SerializeToString()]
        page = dht_pb2.Tell(version=1, network_id=NETWORK, expiration_ms=60000)
        page.contents.add(prefix="ffn.0.", experts=[500, 20])
        answers = [self.introduction(ask).SerializeToString(), page.SerializeToString()]
        # In the middle of its catalog it talks nonsense, or falls silent.
        return answers + ([b"\xff" * 300] if kind == 3 else [])

    def run(self):
        while not self.stopping:
            for s, _ in self.poller.poll(100):
                route, frame = s.recv_multipart()[:2]
                self.heard += 1
                for answer in self.answers(self.kinds[s], frame):
                    s.send_multipart([route, *answer] if isinstance(answer, list) else [route, answer])
        for s in self.sockets:
            s.close()

    def stop(self):
        self.stopping = True
        self.thread.join()


def sure(dht, *uids):
    """What it says when it is certain."""
    while True:
        reply = dht.ask(dht_pb2.RESOLVE, uids=uids, deadline_ms=20000, status=None)
        expect(reply.status in (OK, DEADLINE_EXCEEDED), f"{dht.name} answered {reply.status}, '{reply.message}'")
        if reply.status == OK:
            return [sorted(replica.endpoint for replica in r.replicas) for r in reply.resolved]


def test_strangers_hide_nobody_and_cost_little():
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    expect(limit[1] >= 4096, "room for the strangers' sockets")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit[1], 65536), limit[1]))
    context.set(zmq.MAX_SOCKETS, 4096)
    quiet = {"period": 10, "expiration": 3000}
    frontends = [Frontend([f"ffn.{i}.{j}" for j in range(8)]) for i in range(3)]
    a = node()
    servers = [node(a.address, frontend=f, **quiet) for f in frontends[:2]]
    known = ["ffn.0.0", "ffn.1.7", "ffn.9.9"]
    right = [[frontends[0].endpoint], [frontends[1].endpoint], []]
    old, plain = node(a.address), node(a.address)
    for dht in (old, plain):
        until(lambda: sure(dht, *known) == right, "found without strangers")
    nodes = [(d.address.split(":")[0], d.port) for d in (a, *servers, old, plain)]

    quiet_ones, liars = silent(), Liars()
    try:
        # A key keeps those that come first.
        real = liars.addresses + [s.getsockname() for s in quiet_ones]
        closed = [(f"10.9.{120 + n % 100}.1", 1000 + n // 100) for n in range(ANNOUNCEMENTS // len(nodes) - len(real))]
        # A key keeps a hundred: shards of one prefix are full as well, though fewer than a reader connects to in all.
        keys = ["ffn.0.", *("ffn.0.#" + digit for digit in "0123"), "ffn.2.", "ffn.9."]
        made = announce(nodes, keys, real + closed)
        expect(made >= ANNOUNCEMENTS - len(nodes), f"{made} announcements")

        misses, before = old.counter("cache_misses"), cpu_s(old)
        for _ in range(300):
            expect(old.resolve(*known[:2]) == right[:2], "who knows goes on knowing")
        expect(old.counter("cache_misses") == misses, "and need not ask anybody")
        # One that is new meets them all; so does a server that comes late, and has to be found among them.
        late = node(a.address, frontend=frontends[2], **quiet)
        new = node(a.address)
        expect(sure(new, *known) == right, "a new reader finds what there is, and only says so when it is certain")
        until(lambda: sure(new, "ffn.2.3") == [[frontends[2].endpoint]], "a server that came late is found")
        expect(sure(late, *known) == right, "and it finds the others")
        expect(new.counter("closed_large") > 0, "and one that says too much at once is not listened to")
        expect(liars.heard > 0 and new.counter("servers_lying") > 0 and new.counter("servers_silent") > 0,
               "strangers have been asked")
        asked, addresses = new.counter("servers_asked"), new.counter("servers_known")
        print(f"asked {asked:.0f} times, {addresses:.0f} addresses, {new.counter('servers_lying'):.0f} lies, "
              f"{new.counter('servers_silent'):.0f} silent; {rss_mb(new):.1f} MB, {rss_mb(plain):.1f} without; "
              f"{cpu_s(new):.2f} s of CPU; the old one {cpu_s(old) - before:.2f} s", flush=True)
        expect(addresses > 500, "there were many of them")
        expect(asked <= 40 * addresses, "none is asked again and again")
        # A sanitizer's allocator keeps what was freed.
        for dht in () if any(word in BUILD for word in ("address", "undefined", "thread")) else (old, new, late):
            expect(rss_mb(dht) - rss_mb(plain) < 50, f"{dht.name}: memory: {rss_mb(dht)} MB, {rss_mb(plain)} without")
    finally:
        liars.stop()
        for s in quiet_ones:
            s.close()
        for frontend in frontends:
            frontend.stop()


if __name__ == "__main__":
    run([test_strangers_hide_nobody_and_cost_little])
