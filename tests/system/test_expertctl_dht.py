#!/usr/bin/python3
# timeout: 60
"""expertctl against real expertd-dht processes: resolve, search, draw, and the dht's status in stats."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support_dht import *

OK_EXIT, USAGE, UNAVAILABLE, NOT_FOUND, INVALID, LATE = 0, 2, 3, 4, 5, 6
EXPERTCTL = os.path.join(BUILD, "bin", "expertctl")


def ctl(*arguments, status=OK_EXIT):
    """What it printed; of --json the object."""
    done = subprocess.run([EXPERTCTL, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    expect(done.returncode == status, f"{arguments}: exit status {done.returncode}: {done.stdout} {done.stderr}")
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def two_servers():
    """A node that publishes nothing, and behind it two servers with one expert in common; its endpoint."""
    one = Frontend(["ffn.0.0", "ffn.0.1", "ffn.0.2", "ffn.2.5"])
    two = Frontend(["ffn.0.2", "ffn.1.7"])
    node = Dht(expiration=60)  # nothing here is to expire: a busy machine may keep a heartbeat for some time
    servers = [Dht(node, frontend=f, expiration=60) for f in (one, two)]
    until(lambda: len(node.resolve("ffn.0.2")) == 2 and node.resolve("ffn.2.5"), "both are found")
    return node, one, two, servers


def test_resolve():
    node, one, two, servers = two_servers()
    expect(ctl("--dht", node.listen, "resolve", "ffn.0.0", "ffn.1.7") ==
           f"ffn.0.0\t{one.endpoint}\nffn.1.7\t{two.endpoint}\n", "a line for each, in the order asked")
    both = ctl("--dht", node.listen, "resolve", "ffn.0.2").split()
    expect(both[0] == "ffn.0.2" and sorted(both[1:]) == sorted([one.endpoint, two.endpoint]), "all replicas")
    expect(ctl("--dht", node.listen, "resolve", "ffn.0.0", "ffn.3.3", status=NOT_FOUND) ==
           f"ffn.0.0\t{one.endpoint}\nffn.3.3\t-\n", "what is not hosted, beside what is")
    said = ctl("--json", "--dht", node.listen, "resolve", "ffn.1.7")
    found, = said["experts"]
    expect((said["status"], found["uid"], found["endpoints"]) == ("OK", "ffn.1.7", [two.endpoint]),
           f"the same for programs: {said}")
    answer = ctl("--json", "--dht", node.listen, "resolve", "ffn.3.3", status=NOT_FOUND)
    expect(answer["status"] == "NOT_FOUND" and answer["message"] and answer["experts"][0]["endpoints"] == [],
           f"also of what is not hosted: {answer}")
    ctl("--dht", node.listen, "resolve", "no uid", status=INVALID)
    servers[1].stop()
    until(lambda: node.resolve("ffn.1.7") == [], "forgotten after its farewell")
    ctl("--dht", node.listen, "resolve", "ffn.1.7", status=NOT_FOUND)
    one.stop()
    two.stop()


def test_search():
    node, one, two, _ = two_servers()
    expect(ctl("--dht", node.listen, "search", "ffn.") == "ffn.[0:3].\n", "coordinates that others follow")
    expect(ctl("--dht", node.listen, "search", "ffn.0.", "ffn.2.") == "ffn.0.[0:3]\nffn.2.5\n", "that complete uids")
    expect(ctl("--dht", node.listen, "search", "gone.") == "", "nothing behind a prefix is an answer")
    expect(ctl("--json", "--dht", node.listen, "search", "ffn.", "ffn.1.")["prefixes"] ==
           [{"prefix": "ffn.", "experts": [], "branches": [[0, 3]]},
            {"prefix": "ffn.1.", "experts": [[7, 8]], "branches": []}], "ranges for programs, without their ends")
    one.stop()
    two.stop()


def test_draw():
    node, one, two, _ = two_servers()
    free = {"ffn.0.3", "ffn.0.4", "ffn.0.5"}
    drawn = ctl("--dht", node.listen, "draw", "ffn.0.[0:6]", "--count", "3").split()
    expect(len(drawn) == 3 and set(drawn) == free, f"those that nobody hosts: {drawn}")
    one_drawn = ctl("--dht", node.listen, "draw", "ffn.0.[0:6]").split()
    expect(len(one_drawn) == 1 and one_drawn[0] in free, f"one, when no number is given: {one_drawn}")
    fewer = ctl("--json", "--dht", node.listen, "draw", "ffn.0.[0:6]", "--count", "10")
    expect(fewer["free"] == 3 and set(fewer["uids"]) == free, f"as many as there are: {fewer}")
    ctl("--dht", node.listen, "draw", "ffn.[9", "--count", "1", status=INVALID)
    one.stop()
    two.stop()


def test_stats_with_the_status_of_the_dht():
    node, one, two, _ = two_servers()
    port = free_port()
    endpoint = f"tcp://127.0.0.1:{port}"
    frontend = subprocess.Popen(
        [os.path.join(BUILD, "bin", "expertd-frontend"), "--server-name", f"test{os.getpid()}-stats",
         "--server-run-dir", f"{folder}/run-stats", "--frontend-listen", endpoint], stderr=subprocess.DEVNULL)
    try:
        ctl("--endpoint", endpoint, "--timeout", "500", "ping")
        said = dict(line.split() for line in ctl("--endpoint", endpoint, "--dht", node.listen, "stats").splitlines())
        expect(float(said["dht.servers_alive"]) == 2, f"two servers are known: {said}")
        expect(any(name.startswith("frontend.") for name in said), "beside the frontend's own counters")
        both = ctl("--json", "--endpoint", endpoint, "--dht", node.listen, "stats")
        expect(both["status"] == "OK" and both["dht"]["dht.servers_alive"] == 2, f"the same for programs: {both}")
        alone = ctl("--json", "--endpoint", endpoint, "stats")
        expect("dht" not in alone, "only where it is asked for")
        nowhere = f"tcp://127.0.0.1:{free_port()}"
        ctl("--endpoint", endpoint, "--timeout", "0.3", "--dht", nowhere, "stats", status=UNAVAILABLE)
    finally:
        frontend.terminate()
        expect(frontend.wait(600) == 0, "the frontend ended cleanly")
    one.stop()
    two.stop()


def test_no_dht_there():
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    for command in (["resolve", "ffn.0.0"], ["search", "ffn."], ["draw", "ffn.[0:2]"]):
        ctl("--timeout", "0.3", "--dht", nowhere, *command, status=UNAVAILABLE)
        said = ctl("--json", "--timeout", "0.3", "--dht", nowhere, *command, status=UNAVAILABLE)
        expect(said["status"] == "UNAVAILABLE" and said["message"], f"an object in every case: {said}")
    ctl("--dht", "nonsense", "resolve", "ffn.0.0", status=USAGE)
    ctl("--dht", nowhere, "resolve", status=USAGE)


if __name__ == "__main__":
    names = sys.argv[1:]
    run([f for name, f in list(globals().items())
         if name.startswith("test_") and (not names or any(n in name for n in names))])
