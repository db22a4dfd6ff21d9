#!/usr/bin/env python3
# timeout: 600
"""What the programs tell systemd (Type=notify), over a stand-in for its socket: that they are ready, what they do, that work is
done, that the configuration is read again, that they end."""
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time

from support_ports import free_port
from support_server import BIN, PATIENCE, ROOT, Server, pb, until

WATCHDOG_US = 40000  # a program feeds it four times in that at most


class Supervisor:
    """One program's socket, and what it has said."""

    def __init__(self, path):
        self.path, self.said, self.marks = path, [], 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while (text := self.socket.recv(4096).decode()) != "end":
            self.said.append(text)

    def heard(self):
        """All that was said before this call."""
        self.marks += 1
        mark = f"mark {self.marks}"
        self.tell(mark)
        until(lambda: mark in self.said, "the stand-in hears itself")
        return [text for text in self.said if not text.startswith("mark ")]

    def tell(self, text):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(text.encode(), self.path)

    def fed(self):
        return self.heard().count("WATCHDOG=1")

    def until_fed(self, what):
        before = self.fed()
        until(lambda: self.fed() > before + 1, what)

    def close(self):
        self.tell("end")
        self.socket.close()


def start(server, program, *arguments):
    supervisor = Supervisor(f"{server.folder}/{program}.notify")
    environment = {**os.environ, "NOTIFY_SOCKET": supervisor.path, "WATCHDOG_USEC": str(WATCHDOG_US)}
    environment.pop("WATCHDOG_PID", None)
    server.start_as(program, f"expertd-{program}", *arguments, env=environment)
    return supervisor


def first_said(supervisor, start_of):
    return until(lambda: next((text for text in supervisor.heard() if text.startswith(start_of)), None), start_of)


def reload(server):
    return subprocess.run([f"{BIN}/expertctl", "--run-dir", server.run_dir, "--server", server.name, "-t", str(PATIENCE), "reload"],
                          capture_output=True, text=True)


def test_reload(server, frontend):
    """Told before and after, done or refused; in that order."""
    def told():
        return [text for text in frontend.heard() if text.startswith(("RELOADING=1", "READY=1"))]

    begun = len(told())
    with open(server.config) as file:
        before = file.read()
    with open(server.config, "a") as file:
        file.write("  - {uid: nop.1, block: nop, hidden_dim: 4, max_batch_size: 8}\n")
    done = reload(server)
    assert done.returncode == 0, done.stderr
    with open(server.config, "a") as file:
        file.write("  - {uid: nop.1, bloc: nop}\n")
    refused = reload(server)
    assert refused.returncode != 0 and "bloc" in refused.stderr, refused
    until(lambda: len(told()) >= begun + 4, "both ends are told")
    said = told()[begun:]
    assert [text.split("\n")[0] for text in said] == ["RELOADING=1", "READY=1"] * 2, said
    times = [int(re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", text)[1]) for text in said[::2]]
    assert 0 < times[0] < times[1] <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000, times
    with open(server.config, "w") as file:
        file.write(before)


def test_watchdog(server, frontend):
    """A frontend that turns and answers, but ends nothing of what waits, is not alive."""
    frontend.until_fed("an idle frontend feeds its watchdog")
    client, other = server.client(), server.client()
    server.running["runtime"].send_signal(signal.SIGSTOP)
    client.send(pb.FORWARD, "nop.0", 1)
    until(lambda: other.counters()["device.device0.in_flight"] == 1, "the request waits")
    fed, turns, end = frontend.fed(), 0, time.monotonic() + 8 * WATCHDOG_US / 1e6
    while turns < 20 or time.monotonic() < end:  # time enough for it to do wrong
        other.counters()
        turns += 1
    assert other.counters()["device.device0.in_flight"] == 1
    assert frontend.fed() == fed, "fed, while a request waits and none ends"
    server.running["runtime"].send_signal(signal.SIGCONT)
    assert client.receive().status == pb.OK
    frontend.until_fed("it feeds again")


def test_runtime_watchdog(server, runtime):
    """A runtime whose batch does not end is not alive, though others are asked and its loop turns."""
    client, other = server.client(), server.client()

    def works():
        for _ in range(8):
            client.send(pb.FORWARD, "nop.0", 1)
        return all(client.receive().status == pb.OK for _ in range(8)) and runtime.fed() > fed + 1

    fed = runtime.fed()
    until(works, "a runtime feeds its watchdog while work completes")
    runtime.until_fed("and while there is none")
    with open(HOLD, "w"):
        pass
    client.send(pb.FORWARD, "held.0", 200)  # so many rows that it looks out for others' meanwhile
    until(lambda: os.path.exists(HOLD + ".begun"), "the batch is on the device")
    fed = runtime.fed()
    for asked in range(2):
        end = time.monotonic() + 4 * WATCHDOG_US / 1e6
        while time.monotonic() < end:  # time enough for it to do wrong
            assert other.call(pb.STATS).stats.counters
        client.send(pb.FORWARD, "nop.0", 1)
    until(lambda: other.counters()["device.device0.in_flight"] == 3, "all of them wait")
    assert runtime.fed() == fed, "fed, while a batch does not end"
    os.unlink(HOLD)
    assert [client.receive().status for _ in range(3)] == [pb.OK] * 3
    runtime.until_fed("it feeds again")


def compile_block(folder):
    """tests/system/held_block.c, as docs/writing-an-expert.md says, but of the source tree."""
    with open(f"{ROOT}/Makefile") as file:
        version = re.search(r"^VERSION *:= *(\S+)", file.read(), re.M)[1]
    flags = subprocess.check_output(["pkg-config", "--cflags", "OpenCL"], text=True)
    subprocess.run(["gcc", "-std=gnu11", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", f'-DEXPERTD_VERSION="{version}"',
                    f"-I{ROOT}", f"-I{BIN}/../gen", *shlex.split(flags), "-o", f"{folder}/held.so",
                    f"{ROOT}/tests/system/held_block.c"], check=True)
    return f"{folder}/held.so"


folder = tempfile.TemporaryDirectory()
HOLD = os.environ["EXPERTD_TEST_HOLD"] = f"{folder.name}/hold"
HELD = f"{{uid: held.0, block: {compile_block(folder.name)}, hidden_dim: 4, max_batch_size: 256, optimizer: none}}"
with folder, Server([HELD, "{uid: nop.0, block: nop, hidden_dim: 4, max_batch_size: 8}"]) as server:
    frontend = start(server, "frontend")
    assert first_said(frontend, "READY=1").split("\n")[1] == f"STATUS=answers at {server.endpoint}"
    runtime = start(server, "runtime")
    assert first_said(runtime, "READY=1") == "READY=1\nSTATUS=serves device device0"
    assert first_said(frontend, "STATUS=") == f"STATUS=answers at {server.endpoint}, 1 of 1 devices up"
    server.wait_alive()
    test_watchdog(server, frontend)
    test_runtime_watchdog(server, runtime)
    test_reload(server, frontend)
    told = {"frontend": frontend, "runtime": runtime}
    for program, what, *arguments in (("dht", "answers at ", "--dht-listen", f"ipc://{server.folder}/dht", "--dht-port", "0", "--dht-frontend", "none"),
                                      ("http", "listens at http://", "--http-listen", f"127.0.0.1:{free_port()}")):
        if os.path.exists(f"{BIN}/expertd-{program}"):
            told[program] = start(server, program, *arguments)
            assert first_said(told[program], "READY=1").startswith(f"READY=1\nSTATUS={what}")
    if "dht" in told:
        told["dht"].until_fed("an idle dht feeds its watchdog")
    for program in told:
        server.running[program].terminate()
    for program, supervisor in told.items():
        assert server.running[program].wait(PATIENCE) == 0, program
        stopping = supervisor.heard().index("STOPPING=1\nSTATUS=stopping")
        assert "WATCHDOG=1" not in supervisor.heard()[stopping:], "saving may take longer"
        supervisor.close()
