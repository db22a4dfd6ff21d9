#!/usr/bin/python3
# timeout: 1800
"""Six hosts at two switches, as network namespaces. The link between the switches goes down: each side goes on by itself,
forgets the other's servers, and finds what is started meanwhile. It comes up again, and all is found by everybody."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support_dht import *

SWITCH = f"expertd-{os.getpid()}-switch"
SIDES = {"a": [1, 2, 3], "b": [4, 5, 6]}


def host(number):
    return f"expertd-{os.getpid()}-{number}", f"10.203.7.{number}"


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=not check).returncode == 0


def can_make_hosts():
    try:
        if not ip("netns", "add", SWITCH, check=False):
            return False
        return ip("netns", "exec", SWITCH, "true", check=False) and \
            ip("-n", SWITCH, "link", "add", "name", "side-a", "type", "bridge", check=False)
    except FileNotFoundError:
        return False


def make_hosts():
    ip("-n", SWITCH, "link", "add", "name", "side-b", "type", "bridge")
    ip("-n", SWITCH, "link", "add", "name", "ab", "type", "veth", "peer", "name", "ba")
    ip("-n", SWITCH, "link", "set", "ab", "master", "side-a")
    ip("-n", SWITCH, "link", "set", "ba", "master", "side-b")
    for side, numbers in SIDES.items():
        ip("-n", SWITCH, "link", "set", f"side-{side}", "up")
        for number in numbers:
            name, address = host(number)
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", SWITCH, "link", "add", "name", f"to{number}", "type", "veth", "peer", "name", "net", "netns", name)
            ip("-n", SWITCH, "link", "set", f"to{number}", "master", f"side-{side}", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "brd", "+", "dev", "net")
            ip("-n", name, "link", "set", "net", "up")
    link("up")


def link(state):
    for end in "ab", "ba":
        ip("-n", SWITCH, "link", "set", end, state)


def remove_hosts():
    for number in [n for numbers in SIDES.values() for n in numbers]:
        ip("netns", "delete", host(number)[0], check=False)
    ip("netns", "delete", SWITCH, check=False)


def endpoint(number):
    return f"tcp://{host(number)[1]}:31330"


def server(number, bootstrap, uid, port=4222):
    frontend = Frontend([uid], f"ipc://{folder}/frontend-{number}-{port}")
    return Dht(*bootstrap, host=host(number), port=port, frontend=frontend, endpoint=endpoint(number), period=0.5, expiration=4)


def finds(dht, **expected):
    """Of experts by their names: the number of the host that has it, 0 for none."""
    uids = [name.replace("_", ".") for name in expected]
    until(lambda: [r.endpoint for r in
                   sum((list(x.replicas) or [dht_pb2.Replica()] for x in
                        dht.ask(dht_pb2.RESOLVE, uids=uids, status=None).resolved), [])] ==
          [endpoint(n) if n else "" for n in expected.values()], f"{dht.name} finds {expected}")


def test_two_sides_that_part_and_meet_again():
    make_hosts()
    first = Dht(host=host(1), port=4222)
    other = Dht(first, host=host(4), port=4222)
    both = [first, other]
    server(2, both, "ffn.0.0")
    killed = server(5, both, "ffn.1.0")
    near, far = Dht(*both, host=host(3), port=4222), Dht(*both, host=host(6), port=4222)
    finds(near, ffn_0_0=2, ffn_1_0=5)
    finds(far, ffn_0_0=2, ffn_1_0=5)
    link("down")
    finds(near, ffn_0_0=2, ffn_1_0=0)
    finds(far, ffn_0_0=0, ffn_1_0=5)
    server(3, both, "ffn.2.0", 5222)
    server(6, both, "ffn.3.0", 5222)
    killed.kill()
    finds(near, ffn_0_0=2, ffn_1_0=0, ffn_2_0=3, ffn_3_0=0)
    finds(far, ffn_0_0=0, ffn_1_0=0, ffn_2_0=0, ffn_3_0=6)
    # Those that come now know but half of the world.
    finds(Dht(*both, host=host(2), port=5222), ffn_0_0=2, ffn_3_0=0)
    link("up")
    for dht in near, far, Dht(other, host=host(2), port=6222):
        finds(dht, ffn_0_0=2, ffn_1_0=0, ffn_2_0=3, ffn_3_0=6)
    server(5, both, "ffn.1.0", 5222)
    for dht in near, far:
        finds(dht, ffn_0_0=2, ffn_1_0=5, ffn_2_0=3, ffn_3_0=6)


if __name__ == "__main__":
    possible = can_make_hosts()
    try:
        if possible:
            run([test_two_sides_that_part_and_meet_again])
    finally:
        remove_hosts()
    print("skipped: this machine lets us make no network namespaces")
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(77)
