#!/usr/bin/env python3
"""What a server holds loses its name, or is damaged, under the running processes: segments, lock files, the doorbell, a
task pool, the control segment's state. Whoever notices says so and makes it anew; LIST says what a call gets; and nothing
needs another restart than that of a process that died."""
# timeout: 1200
import glob, os, shutil, struct, subprocess, time

from support_server import BIN, PATIENCE, Server, pb, until

EXPERTS = ["{uid: \"nop.[0:4]\", block: nop, hidden_dim: 4}"]
STATE = 192  # of struct control_shared: runtime.state


def works(server, uid="nop.0"):
    """A call is answered OK by now or soon, and never UNAVAILABLE while LIST says alive both before and after it."""
    def call():
        client = server.client()
        before = client.alive()[uid]
        reply = client.call(pb.BACKWARD, uid, 2, tensors=2, client_id=os.urandom(16))
        after = client.alive()[uid]
        client.close()
        assert reply.status in (pb.OK, pb.UNAVAILABLE), reply
        if before and after and reply.status != pb.OK:
            disagreements.append(reply.message)
        return reply.status == pb.OK

    disagreements = []
    until(call, f"{uid} works")
    assert len(disagreements) <= 1, disagreements  # it may have changed during the call


def control(server):
    (path,) = glob.glob(f"/dev/shm/expertd.{server.name}.device0.control")
    return path


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def remove_run_dir(server):
    """At once: what the programs make anew meanwhile is not taken for a part of what is removed."""
    os.rename(server.run_dir, server.folder + "/removed")
    shutil.rmtree(server.folder + "/removed")


def removed_segments(server):
    works(server)
    old = server.segments()
    for segment in old:
        os.unlink(segment)
    works(server, "nop.1")  # which nobody had called
    until(lambda: server.segments() and not set(server.segments()) & set(old) - {control(server)}, "new segments")
    assert "do not lead to them" in server.log("runtime")
    server.kill("frontend")
    server.start("frontend")
    server.wait_alive()
    works(server)


def one_removed_pool(server):
    works(server)
    said = server.log("runtime").count("made anew")
    os.unlink(sorted(s for s in server.segments() if not s.endswith("control"))[-1])
    until(lambda: server.log("runtime").count("made anew") > said, "the runtime notices")
    server.wait_alive()
    works(server, "nop.3")


def removed_and_crashed(server):
    for segment in server.segments():
        os.unlink(segment)
    server.kill("runtime")
    server.start("runtime")
    server.wait_alive()  # not only after a restart of the frontend
    works(server)


def removed_run_dir(server):
    changes = f"{server.run_dir}/{server.name}.socket"
    assert os.path.exists(changes)
    remove_run_dir(server)
    for program in ("frontend", "runtime"):
        until(lambda: "was removed: made anew" in server.log(program), f"the {program} notices")
        second = subprocess.run([f"{BIN}/expertd-{program}", "--config", server.config], capture_output=True, text=True,
                                timeout=PATIENCE)
        assert second.returncode == 1 and "has a running" in second.stderr, second
    works(server)
    # Experts are changed over a socket there: it is found again, too.
    until(lambda: os.path.exists(changes), "the socket for changes has its name again")
    for command in (["load", "nop.9"], ["unload", "nop.9"]):
        done = subprocess.run([f"{BIN}/expertctl", "--run-dir", server.run_dir, "--server", server.name, "-t", str(PATIENCE), *command,
                               *(["--block", "nop", "--hidden-dim", "4"] if command[0] == "load" else [])], capture_output=True, text=True)
        assert done.returncode == 0, done
    before = server.client().counters()["frontend.sleeps"]
    works(server)
    assert server.client().counters()["frontend.sleeps"] >= before
    server.kill("runtime")
    until(lambda: not server.client().alive()["nop.0"], "the death of the runtime is seen")
    server.start("runtime")
    server.wait_alive()
    works(server)


def removed_run_dir_of_the_dht(server):
    command = [f"{BIN}/expertd-dht", "--config", server.config, "--dht-port", "0", "--dht-frontend", "none", "--dht-listen"]
    with open(f"{server.folder}/dht.log", "a") as log:
        server.running["dht"] = subprocess.Popen(command + [f"ipc://{server.folder}/dht"], stderr=log)
    until(lambda: glob.glob(server.run_dir + "/*.dht.lock"), "the dht has its role")
    remove_run_dir(server)
    until(lambda: "was removed: made anew" in server.log("dht"), "the dht notices")
    second = subprocess.run(command + [f"ipc://{server.folder}/second"], capture_output=True, text=True, timeout=PATIENCE)
    assert second.returncode == 1 and "has a running" in second.stderr, second
    server.stop("dht")
    until(lambda: len(glob.glob(server.run_dir + "/*.lock")) >= 3, "the others have theirs again, too")


def a_role_that_another_took(server):
    """Before the runtime looks: it is stopped meanwhile."""
    runtime = server.running["runtime"]
    runtime.send_signal(19)
    remove_run_dir(server)
    refused = subprocess.run([f"{BIN}/expertd-runtime", "--config", server.config], capture_output=True, text=True, timeout=PATIENCE)
    assert refused.returncode == 1 and "another server.name" in refused.stderr, refused  # it has its segments still
    for segment in server.segments():
        os.unlink(segment)
    with subprocess.Popen([f"{BIN}/expertd-runtime", "--config", server.config], stderr=subprocess.PIPE) as other:
        until(lambda: glob.glob(server.run_dir + "/*runtime.device0.lock"), "the other one has the role")
        until(lambda: b"ready" in other.stderr.readline(), "the other one serves")
        runtime.send_signal(18)
        assert runtime.wait(PATIENCE) == 1, "it gives way"
        assert glob.glob(f"/dev/shm/expertd.{server.name}.device0.control"), "what is there is the other one's"
        works(server)
        other.terminate()
        assert other.wait(PATIENCE) == 0
    server.start("runtime")
    server.wait_alive()


def another_run_dir(server):
    """A second server of the same name, as of a shell with another XDG_RUNTIME_DIR: neither of its programs touches the first."""
    second = ["--config", server.config, "--server-run-dir", f"{server.folder}/other", "--frontend-listen", f"ipc://{server.folder}/second"]
    said = server.log("runtime").count("made anew")
    segments = set(server.segments())
    refused = subprocess.run([f"{BIN}/expertd-runtime", *second], capture_output=True, text=True, timeout=PATIENCE)
    assert refused.returncode == 1 and "another server.name" in refused.stderr, refused
    with open(f"{server.folder}/second.log", "w") as log:
        server.running["second"] = subprocess.Popen([f"{BIN}/expertd-frontend", *second], stderr=log)
    until(lambda: "two servers on one box need two names" in server.log("second"), "the second frontend says why it has no experts")
    works(server)
    server.stop("second")
    taken = subprocess.run([f"{BIN}/expertd-frontend", *second[:-1], server.endpoint], capture_output=True, text=True, timeout=PATIENCE)
    assert taken.returncode == 1 and "Address already in use" in taken.stderr, taken
    works(server)
    assert server.log("runtime").count("made anew") == said and segments == set(server.segments())


def overwritten_state(server):
    for value in (0, 2, 77):
        works(server)
        overwrite(control(server), STATE, struct.pack("<I", value))
        time.sleep(0.1)
        works(server)
    overwrite(control(server), 0, b"not a control segment")
    works(server)
    server.kill("frontend")
    overwrite(control(server), 4096 + 128, b"\xff" * 3000)  # the experts' records, which a starting frontend reads
    server.start("frontend")
    server.wait_alive()
    works(server)


def damaged_pools(server):
    works(server)
    pools = sorted(s for s in server.segments() if not s.endswith("control"))
    for pool in pools:  # the frontend's positions, which the runtime reads: in the first page, after the constants
        with open(pool, "r+b") as file:
            page = file.read(4096)
            end = len(page.rstrip(b"\0"))
            file.seek(end // 64 * 64)
            file.write(b"\xee" * (4096 - end // 64 * 64))
    for uid in ("nop.0", "nop.1", "nop.2", "nop.3"):
        works(server, uid)
    assert "damaged" in server.log("runtime") + server.log("frontend")


def truncated_segments(server):
    """A process that touches what is gone ends: acceptable. Then its restart is all that is needed."""
    works(server)
    for segment in server.segments():
        os.truncate(segment, 0)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for program in ("frontend", "runtime"):
            if server.running[program].poll() is not None:
                server.start(program)
        client = server.client()
        client.send(pb.FORWARD, "nop.2", 1)
        done = client.socket.poll(1000) and pb.ReplyHeader.FromString(client.socket.recv_multipart()[0]).status == pb.OK
        client.close()
        if done:
            break
    else:
        raise AssertionError("it is not well again")
    server.wait_alive()
    works(server)


def planted_names(server):
    server.stop("runtime")
    name = f"/dev/shm/expertd.{server.name}.device0.control"
    os.mkdir(name)
    server.start("runtime")
    server.wait_alive()
    server.stop("runtime")
    with open(name, "w") as file:
        file.write("planted")
    server.start("runtime")
    server.wait_alive()
    server.stop("runtime")
    os.mkdir(name)
    open(name + "/full", "w").close()
    refused = subprocess.run([f"{BIN}/expertd-runtime", "--config", server.config], capture_output=True, text=True,
                             timeout=PATIENCE)
    shutil.rmtree(name)
    assert refused.returncode == 1 and name in refused.stderr, refused
    server.start("runtime")
    server.wait_alive()


with Server(EXPERTS) as server:
    server.start()
    server.wait_alive()
    for case in (removed_segments, one_removed_pool, removed_and_crashed, removed_run_dir, removed_run_dir_of_the_dht,
                 a_role_that_another_took, another_run_dir, overwritten_state, damaged_pools, planted_names, truncated_segments):
        case(server)
        print(case.__name__, flush=True)
    server.stop()
print("removed names: ok")
