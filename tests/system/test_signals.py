# Every way in which a person or a supervisor ends a server saves what was trained and leaves no segment behind.
# timeout: 900
import glob, os, pty, resource, shutil, signal, subprocess, sys, tempfile, termios, time

root = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
build = os.path.abspath(os.path.join(root, os.environ.get("BUILD", "build")))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import socket

import numpy
from support_cache import warm_cache

expertctl = f"{build}/bin/expertctl"
HANG = 300  # seconds that only a hang reaches
work = tempfile.mkdtemp()
name = f"signals-{os.getpid()}"
port = socket.create_server(("127.0.0.1", 0)).getsockname()[1]
os.environ["EXPERTD_ENDPOINT"] = f"tcp://127.0.0.1:{port}"
with open(f"{work}/expertd.yaml", "w") as file:
    file.write(f"""
server: {{name: {name}, run_dir: {work}/run}}
frontend: {{listen: ["{os.environ['EXPERTD_ENDPOINT']}"]}}
dht: {{listen: "ipc://{work}/dht", port: 0}}
checkpoint: {{dir: {work}/checkpoints, interval: 0}}
devices: [{{name: device0, cache_dir: {warm_cache()}}}]
experts: [{{uid: ffn.0, block: ffn, hidden_dim: 8, max_batch_size: 16, optimizer: sgd}}]
""")
rows = numpy.ones((4, 8), "float32")
numpy.save(f"{work}/x.npy", rows)


def children(pid):
    """The children of each thread of pid; none of one that has gone, also while this looks."""
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            found += [int(child) for child in open(path).read().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def program(pid):
    """The name of what pid runs; "" of one that has gone, or ends just now."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except (FileNotFoundError, ProcessLookupError):
        return ""


def programs(pid):
    """The processes of the server under pid, without what starts them."""
    found = []
    for child in children(pid):
        found += [child] if "expertd-" in program(child) else programs(child)
    return found


def wait_for(what, condition):
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"{what}: not after {HANG} s"
        time.sleep(0.05)


def gone(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def updates():
    return max((int(os.path.basename(path).split(".")[0]) for path in glob.glob(f"{work}/checkpoints/ffn.0/*.safetensors")), default=0)


def on_terminal(command):
    """Starts the command as the leader of a new terminal's session, as a shell's foreground job: its pid, the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        log = os.open(f"{work}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.execv(command[0], command)
    return pid, terminal


def case(title, command, end, statuses):
    before = updates()
    pid, terminal = on_terminal(command)
    try:
        subprocess.run([expertctl, "--timeout", str(HANG), "wait", "ffn.0"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([expertctl, "--timeout", str(HANG), "backward", "ffn.0", "-i", f"{work}/x.npy", "-g", f"{work}/x.npy",
                        "-o", f"{work}/dx.npy"], check=True, stdout=subprocess.DEVNULL)
        parts = programs(pid)
        assert len(parts) >= 2, f"{title}: {parts}"
        end(pid, terminal, parts)
        _, status = os.waitpid(pid, 0)
        for part in parts:
            wait_for(f"{title}: the end of {part}", lambda: gone(part))
        assert statuses is None or os.waitstatus_to_exitcode(status) in statuses, f"{title}: {os.waitstatus_to_exitcode(status)}"
        assert updates() == before + 1, f"{title}: {before} updates before, {updates()} saved"
        left = glob.glob(f"/dev/shm/expertd.{name}*")
        assert not left, f"{title}: left {left}"
        print(f"{title}: ok")
    except BaseException:
        for part in programs(pid) + [pid] if not gone(pid) else []:
            try:
                os.kill(part, signal.SIGKILL)
            except ProcessLookupError:
                pass
        sys.stdout.write(open(f"{work}/log").read())
        raise
    finally:
        try:
            os.close(terminal)
        except OSError:
            pass


def to_all(*numbers):
    def end(pid, terminal, parts):
        for number in numbers:
            for part in [pid] + parts:
                try:
                    os.kill(part, number)
                except ProcessLookupError:
                    pass
    return end


def press(times):
    def end(pid, terminal, parts):
        for _ in range(times):
            os.write(terminal, b"\x03")
    return end


def one_by_one(pid, terminal, parts):
    runtime = next(part for part in parts if program(part) == "expertd-runtime")
    os.kill(runtime, signal.SIGTERM)
    wait_for("the end of the runtime", lambda: gone(runtime))
    wait_for("another runtime", lambda: len(programs(pid)) == len(parts) and runtime not in programs(pid))
    parts += programs(pid)
    os.kill(pid, signal.SIGTERM)


# A disk that takes for ever, as long as a file is there; another one tells that somebody waits for it.
SLOW_DISK = """
#include <fcntl.h>
#include <unistd.h>
int fsync(int fd)
{
    (void)fd;
    while (access(HOLD, F_OK) == 0) {
        const int waits = open(HOLD ".waits", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (waits >= 0)
            close(waits);
        usleep(10000);
    }
    return 0;
}
"""


def learn():
    subprocess.run([expertctl, "--timeout", str(HANG), "wait", "ffn.0"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([expertctl, "--timeout", str(HANG), "backward", "ffn.0", "-i", f"{work}/x.npy", "-g", f"{work}/x.npy",
                    "-o", f"{work}/dx.npy"], check=True, stdout=subprocess.DEVNULL)


def is_ours(pid):
    try:
        return work.encode() in open(f"/proc/{pid}/cmdline", "rb").read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def clean(pid, parts):
    for part in parts + programs(pid) + [pid]:
        if is_ours(part):
            os.kill(part, signal.SIGKILL)
    for segment in glob.glob(f"/dev/shm/expertd.{name}*"):
        os.unlink(segment)


def on_slow_disk(command, end):
    """The command, and its runtime, which waits for the disk as it saves; for end(pid, terminal, runtime, hold)."""
    with open(f"{work}/slow_disk.c", "w") as file:
        file.write(SLOW_DISK)
    hold = f"{work}/hold"
    subprocess.run(["gcc", "-shared", "-fPIC", f'-DHOLD="{hold}"', "-o", f"{work}/slow_disk.so", f"{work}/slow_disk.c"], check=True)
    os.environ["LD_PRELOAD"] = f"{work}/slow_disk.so"
    pid, terminal = on_terminal(command)
    del os.environ["LD_PRELOAD"]
    parts = []
    try:
        learn()
        parts = programs(pid)
        runtime = next(part for part in parts if program(part) == "expertd-runtime")
        open(hold, "w").close()
        end(pid, terminal, runtime, hold)
    finally:
        clean(pid, parts)
        os.close(terminal)
        for path in (hold, f"{hold}.waits"):
            if os.path.exists(path):
                os.unlink(path)


def pressed_again(pid, terminal, runtime, hold):
    """Whoever presses ^C again will not wait for what is being saved."""
    press(1)(pid, terminal, [])
    wait_for("the runtime saves", lambda: os.path.exists(f"{hold}.waits"))
    time.sleep(0.5)  # longer than a key bounces
    assert not gone(runtime), "the runtime waits for the disk"
    press(1)(pid, terminal, [])
    _, status = os.waitpid(pid, 0)
    wait_for("the end of the runtime", lambda: gone(runtime))
    said = open(f"{work}/log").read()
    assert f"expertd-runtime[{runtime}] warning: a second stop signal: ending at once" in said, said
    assert os.waitstatus_to_exitcode(status) in (128 + signal.SIGINT, -signal.SIGINT), os.waitstatus_to_exitcode(status)
    print("a second ^C: ok")


def supervisor_killed(pid, terminal, runtime, hold):
    """A supervisor that was waited for too long is killed, and those whom it had told to end are not hurried by that."""
    before = updates()
    os.kill(pid, signal.SIGTERM)
    wait_for("the runtime saves", lambda: os.path.exists(f"{hold}.waits"))
    time.sleep(3.5)  # a stop signal that comes after 3 s is a second wish
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.5)
    assert not gone(runtime), "the runtime still saves"
    os.unlink(hold)
    wait_for("the end of the runtime", lambda: gone(runtime))
    assert updates() == before + 1, (before, updates())
    print("SIGKILL to the one that had told the others to end: ok")


def no_room(command):
    """A checkpoint that cannot be written, for one reason or another, ends no runtime before its time; and the status says so."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # no file has its log
    parts = []
    try:
        learn()
        parts = programs(server.pid)
        runtime = next(part for part in parts if program(part) == "expertd-runtime")
        resource.prlimit(runtime, resource.RLIMIT_FSIZE, (512, 512))
        failed = subprocess.run([expertctl, "--timeout", str(HANG), "checkpoint", "ffn.0"], capture_output=True, text=True)
        assert failed.returncode and "File too large" in failed.stderr, failed
        learn()
        server.terminate()
        said, _ = server.communicate(timeout=HANG)
        assert server.returncode == 4, (server.returncode, said)
        assert "lost: 2 updates" in said, said
        print("a limit of files' sizes: ok")
    finally:
        clean(server.pid, parts)
        server.wait()


try:
    start = [f"{root}/scripts/start", "--bin", f"{build}/bin", "--config", f"{work}/expertd.yaml"]
    case("^C", start, press(1), [0])
    case("the terminal is closed", start, lambda pid, terminal, parts: os.close(terminal), None)
    case("SIGTERM to the one", start, lambda pid, terminal, parts: os.kill(pid, signal.SIGTERM), [0])
    case("SIGTERM to all", start, to_all(signal.SIGTERM), [0])
    case("SIGINT and SIGTERM to all", start, to_all(signal.SIGINT, signal.SIGTERM), [0])
    case("SIGHUP and SIGTERM to all, as systemd does", start, to_all(signal.SIGTERM, signal.SIGHUP), [0])
    case("SIGTERM to the runtime, which is started again, and then to the one", start, one_by_one, [0])
    case("SIGKILL to the one", start, lambda pid, terminal, parts: os.kill(pid, signal.SIGKILL), [-signal.SIGKILL])
    if shutil.which("supervisord"):
        with open(f"{work}/supervisord.conf", "w") as file:
            subprocess.run([f"{build}/bin/expertd", "print", "--supervisord", "--config", f"{work}/expertd.yaml"], check=True, stdout=file)
        supervisor = [shutil.which("supervisord"), "-n", "-c", f"{work}/supervisord.conf"]
        case("^C on supervisord", supervisor, press(1), [0])
        case("SIGTERM to supervisord", supervisor, lambda pid, terminal, parts: os.kill(pid, signal.SIGTERM), [0])
    no_room(start)
    if "address" not in build:  # whose library has to be the first that is loaded
        on_slow_disk(start, pressed_again)
        on_slow_disk(start, supervisor_killed)
finally:
    shutil.rmtree(work, ignore_errors=True)
print("signals: ok")
