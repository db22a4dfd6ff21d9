#!/usr/bin/python3
# timeout: 900
"""Real expertd-dht processes on loopback: publish, find, expire, say farewell, come back."""
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from support_dht import *


LASTING = 60  # seconds of expiration, where nothing is to expire: a busy machine may keep a heartbeat for some


def ring(nodes=3, **options):
    """A bootstrap node and others that joined by it."""
    first = Dht(**options)
    return [first] + [Dht(first, **options) for _ in range(nodes - 1)]


def test_what_one_publishes_all_find():
    frontend = Frontend([f"ffn.{i}.{j}" for i in range(4) for j in range(16)] + ["top.3"])
    a, b = ring(2)
    server = Dht(a, frontend=frontend, expiration=LASTING)
    for dht in (server, a, b):
        until(lambda: dht.resolve("ffn.2.7") == [frontend.endpoint], f"{dht.name} resolves an expert")
        expect(dht.resolve("ffn.3.15", "ffn.4.0", "top.3", "nobody.9") ==
               [[frontend.endpoint], [], [frontend.endpoint], []], "several uids at once, and some that nobody hosts")
        expect(dht.prefix("ffn.") == [[], [0, 1, 2, 3]], "coordinates that others follow")
        expect(dht.prefix("ffn.1.") == [list(range(16)), []], "coordinates that complete uids")
        expect(dht.prefix("top.") == [[3], []], "a grid of one dimension")
        expect(dht.prefix("none.") == [[], []], "a prefix that nobody has")
    expect(server.counter("experts") == 65 and server.counter("experts_alive") == 65, "counters of the publisher")
    expect(b.counter("servers_alive") == 1, "one server is known")
    frontend.stop()


def test_a_clean_end_is_known_within_a_second():
    frontend = Frontend(["ffn.0.0"])
    a, b = ring(2, period=5, expiration=15)
    server = Dht(a, frontend=frontend, period=5, expiration=15)
    until(lambda: b.resolve("ffn.0.0") == [frontend.endpoint], "found")
    server.stop()
    until(lambda: b.resolve("ffn.0.0") == [], "forgotten after a farewell")
    expect(Dht(a).resolve("ffn.0.0") == [], "and not found by one that comes later")
    frontend.stop()


def test_a_killed_server_expires():
    frontend = Frontend(["ffn.0.0"])
    a, b = ring(2)
    server = Dht(a, frontend=frontend)
    until(lambda: b.resolve("ffn.0.0") == [frontend.endpoint], "found")
    server.kill()
    until(lambda: b.resolve("ffn.0.0") == [], "forgotten after the expiration")
    expect(Dht(a).resolve("ffn.0.0") == [], "and not found by one that comes later")
    frontend.stop()


def lives_on(expiration):
    """Whether an expert is found without a pause until it would have expired twice."""
    frontend = Frontend(["ffn.0.0"])
    a, b = ring(2)
    server = Dht(a, frontend=frontend, period=expiration / 20, expiration=expiration)
    until(lambda: b.resolve("ffn.0.0") == [frontend.endpoint], "found")
    end, found = time.monotonic() + 2.1 * expiration, True
    while found and time.monotonic() < end:
        found = b.resolve("ffn.0.0") == [frontend.endpoint]
        time.sleep(0.02)
    server.stop()
    frontend.stop()
    return found


def test_heartbeats_keep_it_alive():
    expect(any(lives_on(expiration) for expiration in (4, 16, 64)),  # a machine that keeps heartbeats for seconds has more
           "it stays alive beyond its expiration, twice")


def test_an_expert_whose_runtime_died_is_no_longer_advertised():
    uids = [f"ffn.{i}.{j}" for i in range(3) for j in range(4)]
    frontend = Frontend(uids)
    a, b = ring(2)
    server = Dht(a, frontend=frontend)
    until(lambda: b.resolve("ffn.2.3") == [frontend.endpoint], "found")
    frontend.kill({"ffn.1.1", "ffn.2.0", "ffn.2.1", "ffn.2.2", "ffn.2.3"})
    until(lambda: b.resolve("ffn.1.1") == [], "the dead expert is gone")
    until(lambda: b.prefix("ffn.") == [[], [0, 1]], "a prefix without live experts is gone from the one above")
    until(lambda: b.prefix("ffn.1.") == [[0, 2, 3], []], "its neighbours are there")
    until(lambda: b.resolve("ffn.2.3", "ffn.0.0") == [[], [frontend.endpoint]], "below a dead prefix nothing lives")
    expect(server.counter("experts_alive") == 7, "seven are alive")
    frontend.set(dict.fromkeys(uids, True))
    until(lambda: b.resolve("ffn.2.3") == [frontend.endpoint], "and come back")
    frontend.silent = True
    until(lambda: b.resolve("ffn.0.0") == [], "a silent frontend's experts are not advertised")
    frontend.silent = False
    until(lambda: b.resolve("ffn.0.0") == [frontend.endpoint], "until it speaks again")
    frontend.set({"ffn.0.0": True, "new.5": True})
    until(lambda: b.resolve("new.5") == [frontend.endpoint], "a new expert is found")
    until(lambda: b.resolve("ffn.2.3") == [], "one that is no longer hosted is gone")
    until(lambda: b.prefix("ffn.") == [[], [0]], "and its prefix")
    frontend.stop()


def test_restart_with_a_new_endpoint():
    key = f"{folder}/restart.pem"
    frontend = Frontend(["ffn.0.0", "ffn.0.1"])
    a, b = ring(2)
    server = Dht(a, frontend=frontend, dht_identity_file=key)
    identity = server.status().server_id
    until(lambda: b.resolve("ffn.0.1") == [frontend.endpoint], "found")
    server.kill()
    frontend.stop()
    frontend = Frontend(["ffn.0.0"])
    server = Dht(a, frontend=frontend, dht_identity_file=key)
    expect(server.status().server_id == identity, "the identity is that of the file")
    expect(os.stat(key).st_mode & 0o777 == 0o600, "which is private")
    until(lambda: b.resolve("ffn.0.0") == [frontend.endpoint], "only the new endpoint")
    until(lambda: b.resolve("ffn.0.1") == [], "what it no longer hosts is gone, although old records linger")
    late = Dht(a)
    until(lambda: late.resolve("ffn.0.0", "ffn.0.1") == [[frontend.endpoint], []], "the same for one that comes later")
    frontend.stop()


def test_a_copied_identity_ends_the_later_of_the_two():
    key, copy = f"{folder}/original.pem", f"{folder}/copy.pem"
    one, two = Frontend(["ffn.0.0"]), Frontend(["ffn.0.1"])
    a = Dht()
    first = Dht(a, frontend=one, dht_identity_file=key)
    until(lambda: a.resolve("ffn.0.0") == [one.endpoint], "found")
    shutil.copy(key, copy)
    second = subprocess.run([PROGRAM, "--server-name", f"copy{os.getpid()}", "--server-run-dir", f"{folder}/run",
                             "--dht-port", "0", "--dht-listen", f"tcp://127.0.0.1:{free_port()}", "--dht-network-id",
                             str(os.getpid()), "--dht-bootstrap", a.address, "--dht-frontend", two.endpoint,
                             "--frontend-advertise", two.endpoint, "--dht-identity-file", copy],
                            capture_output=True, text=True, timeout=600)
    expect(second.returncode == 75 and "identity" in second.stderr, f"the later one ends, and says why: {second.stderr}")
    until(lambda: a.resolve("ffn.0.1") == [], "it is not found any more")
    until(lambda: a.resolve("ffn.0.0") == [one.endpoint], "the other one is")
    expect(first.process.poll() is None, "and lives")
    one.stop()
    two.stop()


def test_a_copied_identity_costs_a_server_no_more_than_its_directory():
    """Its experts answer and train, and the directory comes in once the other one has gone."""
    key, copy, log = f"{folder}/first.pem", f"{folder}/second.pem", f"{folder}/serve.log"
    one = Frontend(["ffn.0.0"])
    a = Dht()
    first = Dht(a, frontend=one, dht_identity_file=key)
    until(lambda: a.resolve("ffn.0.0") == [one.endpoint], "found")
    shutil.copy(key, copy)
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with open(f"{folder}/serve.yaml", "w") as file:
        file.write(f"""server: {{name: serve{os.getpid()}, run_dir: {folder}/run}}
frontend: {{listen: ["{endpoint}"]}}
dht: {{listen: "tcp://127.0.0.1:{free_port()}", port: 0, network_id: {os.getpid()}, bootstrap: ["{a.address}"],
      identity_file: {copy}, update_period: 1}}
experts: [{{uid: nop.0, block: nop, hidden_dim: 4, max_batch_size: 16}}]
""")
    def said(words):
        with open(log) as file:
            return words in file.read()

    bin_folder = os.path.dirname(PROGRAM)
    with open(log, "w") as out:
        server = subprocess.Popen([f"{bin_folder}/expertd", "serve", "--config", f"{folder}/serve.yaml"], stderr=out)
    try:
        until(lambda: said("dht has ended (exit status 75): starts again"), "it is started again later")
        expect(said("has the same identity"), "and says why it ended")
        subprocess.run([f"{bin_folder}/expertctl", "-e", endpoint, "--timeout", "600", "wait", "nop.0"], check=True)
        expect(server.poll() is None, "the others live")
        first.stop()
        until(lambda: a.resolve("nop.0") == [endpoint], "with the other gone, it is found")
    finally:
        server.terminate()
        status = server.wait(PATIENCE)
    expect(status == 0, f"it ends with {status}")
    one.stop()


def test_two_servers_with_the_same_uid():
    one, two = Frontend(["ffn.0.0", "ffn.0.1"]), Frontend(["ffn.0.0", "ffn.1.0"])
    a, b = ring(2)
    first, second = (Dht(a, frontend=f, expiration=LASTING) for f in (one, two))
    both = sorted([one.endpoint, two.endpoint])
    until(lambda: b.resolve("ffn.0.0") == both, "resolves to both")
    expect(b.resolve("ffn.0.1", "ffn.1.0") == [[one.endpoint], [two.endpoint]], "others to one")
    expect(b.prefix("ffn.0.") == [[0, 1], []], "a coordinate that two have is named once")
    first.stop()
    until(lambda: b.resolve("ffn.0.0") == [two.endpoint], "and to the other when one is gone")
    one.stop()
    two.stop()


def test_a_bootstrap_address_that_is_down_comes_up_later():
    port = free_port()
    frontend = Frontend(["ffn.0.0"])
    server = Dht(f"127.0.0.1:{port}", "nowhere.invalid:4222", frontend=frontend)
    client = Dht(f"127.0.0.1:{port}")
    expect(client.counter("connected") == 0, "nobody is there")
    until(lambda: server.resolve("ffn.0.0", deadline_ms=60000) == [frontend.endpoint], "a server alone finds its own")
    expect(client.resolve("ffn.0.0", deadline_ms=300, status=None) == [], "a client alone finds nothing")
    Dht(port=port)
    until(lambda: client.resolve("ffn.0.0", status=None) == [frontend.endpoint], "found when the bootstrap node is up")
    expect(client.counter("connected") == 1 and client.counter("bootstrap_alive") == 1, "and the client says so")
    frontend.stop()


def test_the_best_of_a_grid():
    random.seed(4)
    frontends = [Frontend(), Frontend()]
    hosted = {}
    for frontend in frontends:
        uids = {f"ffn.{random.randrange(8)}.{random.randrange(32)}" for _ in range(60)}
        frontend.set(dict.fromkeys(uids, True))
        for uid in uids:
            hosted.setdefault(uid, set()).add(frontend.endpoint)
    a = Dht()
    servers = [Dht(a, frontend=f, expiration=LASTING) for f in frontends]
    client = Dht(a)
    until(lambda: len({e for r in client.resolve(*hosted) for e in r}) == 2, "both are found")
    rows, scores = 5, []
    for _ in range(rows):
        scores += [random.gauss(0, 1) for _ in range(40)]
    for dht in (client, servers[0], Dht(a)):
        answer = dht.beam("ffn.", [8, 32], scores, 6)
        expect(len(answer.rows) == rows, "a row for each row")
        for r, row in enumerate(answer.rows):
            at = scores[40 * r:40 * r + 40]
            score = {u: at[int(u.split(".")[1])] + at[8 + int(u.split(".")[2])] for u in hosted}
            best = sorted(hosted, key=lambda u: -score[u])[:6]
            expect([answer.experts[n].uid for n in row.experts] == best, f"row {r} has the best")
            expect(all(abs(score[u] - s) < 1e-5 for u, s in zip(best, row.scores)), "and their scores")
        for expert in answer.experts:
            expect({x.endpoint for x in expert.replicas} == hosted[expert.uid], "with all their endpoints")
    expect(len(client.beam("ffn.", [8, 32], scores[:40], 1024).rows[0].experts) == len(hosted), "no more than there are")
    expect(client.beam("none.", [8, 32], scores[:40], 4).rows[0].experts == [], "none where there are none")
    for frontend in frontends:
        frontend.stop()


def test_uids_that_nobody_has_are_drawn():
    uids = [f"ffn.{i}.{j}" for i in range(2) for j in range(8)]
    frontend = Frontend(uids[:10])
    a = Dht()
    server = Dht(a, frontend=frontend, expiration=LASTING)
    until(lambda: a.resolve("ffn.0.0") == [frontend.endpoint], "found")
    drawn = a.draw("ffn.[0:2].[0:8]", 4)
    expect(len(set(drawn.uids)) == 4 and set(drawn.uids) <= set(uids[10:]) and drawn.free == 6, "four of the free six")
    drawn = a.draw("ffn.[0:2].[0:8]", 16)
    expect(set(drawn.uids) == set(uids[10:]), "no more than there are")
    drawn = a.draw("ffn.[0:64].[0:1000000]", 1000)
    expect(len(set(drawn.uids)) == 1000 and drawn.free == 64000000 - 10, "of a large grid")
    expect(a.draw("solo.[0:5]", 9).free == 5, "of one dimension")
    frontend.stop()


def test_repeated_questions_need_no_network():
    frontend = Frontend(["ffn.0.0"])
    a, b = ring(2)
    Dht(a, frontend=frontend, period=10, expiration=LASTING)
    until(lambda: b.resolve("ffn.0.0") == [frontend.endpoint], "found")
    expect(b.resolve("nobody.1") == [], "nobody")
    hits, misses = b.counter("cache_hits"), b.counter("cache_misses")
    for _ in range(100):
        expect(b.resolve("ffn.0.0", "nobody.1") == [[frontend.endpoint], []], "the same again")
    expect(b.counter("cache_hits") == hits + 200 and b.counter("cache_misses") == misses, "from the cache")
    frontend.stop()


def test_the_same_server_has_one_dht_process():
    Dht(**{"server_name": f"twice{os.getpid()}"})
    second = subprocess.run([PROGRAM, "--server-name", f"twice{os.getpid()}", "--server-run-dir", f"{folder}/run",
                             "--dht-port", "0", "--dht-listen", f"tcp://127.0.0.1:{free_port()}", "--dht-frontend", "none"],
                            capture_output=True, text=True, timeout=600)
    expect(second.returncode == 1 and "dht" in second.stderr, f"the second is refused: {second.stderr}")


def test_what_cannot_work_is_refused_at_start():
    def start(*flags, status=1):
        done = subprocess.run([PROGRAM, "--server-name", f"bad{os.getpid()}", "--server-run-dir", f"{folder}/run", "--dht-port",
                               "0", "--dht-listen", f"tcp://127.0.0.1:{free_port()}", *flags], capture_output=True,
                              text=True, timeout=600)
        expect(done.returncode == status, f"{flags}: ended with {done.returncode}: {done.stderr}")
        return done.stderr
    expect("bootstrap" in start("--dht-bootstrap", "host:port:x", "--dht-frontend", "none", status=2), "an address that is none")
    with open(f"{folder}/garbage.pem", "w") as file:
        file.write("no key")
    expect("identity_file" in start("--dht-identity-file", f"{folder}/garbage.pem", "--dht-frontend", "none"), "a bad key")
    expect("identity_file" in start("--dht-identity-file", f"{folder}/no/such", "--dht-frontend", "none"), "a bad path")
    expect("advertise" in start("--frontend-advertise", "ipc:///tmp/x", status=2), "an endpoint for this machine only")
    taken = Dht()
    expect("dht.port" in start("--dht-port", str(taken.port), "--dht-frontend", "none"), "a port that is taken")
    expect("dht.listen" in start("--dht-listen", taken.listen, "--dht-frontend", "none"), "an endpoint that is taken")


if __name__ == "__main__":
    names = sys.argv[1:]
    run([f for name, f in list(globals().items())
         if name.startswith("test_") and (not names or any(n in name for n in names))])
