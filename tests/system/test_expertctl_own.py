#!/usr/bin/env python3
# timeout: 600
"""Which of the sockets in a server's folder `expertctl --server NAME` takes, by what those who listen there say of themselves: a
change never comes to a server whose name only begins like the one that was meant."""
import contextlib, os, shutil, socket, subprocess, tempfile, threading

from support_server import BIN, PATIENCE, pb, zmq

folder = tempfile.mkdtemp(prefix="expertd-own.")


class Frontend:
    """What one says to PING, and to changes; `others`: the server's other frontends."""

    def __init__(self, name, others=()):
        self.name, self.changed, self.over = name, [], False
        self.pong = pb.Pong(server=name, frontends=[{"server": one, "endpoint": f"ipc://{folder}/{one}"} for one in others])
        self.socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(f"ipc://{folder}/{name}.socket")
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over:
            if not self.socket.poll(20):
                continue
            identity, header = self.socket.recv_multipart()[:2]
            request = pb.RequestHeader.FromString(header)
            reply = pb.ReplyHeader(version=1, request_id=request.request_id)
            if request.method == pb.PING:
                reply.pong.CopyFrom(self.pong)
            else:
                self.changed.append(request.method)
                reply.changes.SetInParent()
            self.socket.send_multipart([identity, reply.SerializeToString()])

    def end(self):
        self.over = True
        self.thread.join()
        self.socket.close()


@contextlib.contextmanager
def frontends(*servers, dead=(), silent=()):
    """Each of `servers` is the names of its frontends, or one name."""
    named = [(one,) if isinstance(one, str) else one for one in servers]
    running = {name: Frontend(name, [one for one in names if one != name]) for names in named for name in names if name not in dead}
    listening = []
    for name in (*dead, *silent):
        one = socket.socket(socket.AF_UNIX)
        one.bind(f"{folder}/{name}.socket")
        if name in silent:
            one.listen()
            listening.append(one)
        else:
            one.close()  # its file is left, as by one that was killed
    try:
        yield running
    finally:
        for one in listening:
            one.close()
        for one in running.values():
            one.end()
        for file in os.listdir(folder):
            os.unlink(f"{folder}/{file}")


def expertctl(*arguments, status=0):
    done = subprocess.run([f"{BIN}/expertctl", "--run-dir", folder, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == status, (arguments, done)
    return done.stderr


def taken(running):
    return {name: one.changed for name, one in running.items() if one.changed}


LEFT, RIGHT = PAIR = ("box1-left", "box1-right")
OTHERS = ("box1-a-left", "box1-a-right")  # of box1-a


def test_a_server_of_a_similar_name_is_not_taken():
    for others in (["box1-a"], [OTHERS], ["box1-a", OTHERS]):
        with frontends(*others) as running:
            said = expertctl("--server", "box1", "unload", "x.0", status=3)
            assert "no server 'box1' answers" in said and all(name in said for name in running), said
            assert not taken(running)
    with frontends("expertd-test") as running:  # nor for the default name
        assert "expertd-test" in expertctl("reload", status=3) and not taken(running)
    with frontends(OTHERS) as running:
        expertctl("--server", "box1-a", "unload", "x.0")
        assert taken(running) == {"box1-a-left": [pb.UNLOAD]}


def test_the_own_frontends_are_found_beside_others():
    with frontends(PAIR, "box1-a", OTHERS, dead=["box1-0"], silent=["box1-z"]) as running:
        expertctl("--server", "box1", "unload", "x.0")
        assert taken(running) == {LEFT: [pb.UNLOAD]}
    with frontends(PAIR, "box1-a") as running:
        expertctl("--server", "box1", "reload")
        assert taken(running) == {LEFT: [pb.RELOAD], RIGHT: [pb.RELOAD]}
    with frontends("box1", "box1-a", PAIR) as running:
        expertctl("--server", "box1", "unload", "x.0")
        assert taken(running) == {"box1": [pb.UNLOAD]}


def test_a_dead_frontend_is_passed_over():
    with frontends(PAIR, dead=[LEFT]) as running:
        expertctl("--server", "box1", "unload", "x.0")
        assert taken(running) == {RIGHT: [pb.UNLOAD]}
    with frontends(PAIR, dead=["box1"]) as running:  # of before it had several
        expertctl("--server", "box1", "unload", "x.0")
        assert taken(running) == {LEFT: [pb.UNLOAD]}
    with frontends(dead=PAIR):
        assert "no frontend of a server 'box1' answers" in expertctl("--server", "box1", "unload", "x.0", status=3)


def test_what_may_be_two_servers_is_refused():
    up = ("box1-down", "box1-up")
    with frontends(PAIR, up) as running:
        said = expertctl("--server", "box1", "unload", "x.0", status=5)
        assert "more than one server" in said and "box1-left" in said and "box1-down" in said, said
        assert not taken(running)
        expertctl("--server", "box1-up", "unload", "x.0")
        assert taken(running) == {"box1-up": [pb.UNLOAD]}


def test_a_dead_server_is_not_waited_for_as_long_as_a_change():
    with frontends(dead=("box",)):
        asked = [subprocess.Popen([f"{BIN}/expertctl", "--run-dir", folder, "--server", "box", *change], stderr=subprocess.PIPE, text=True)
                 for change in (["reload"], ["load", "x.0"], ["unload", "x.0"], ["set", "x.0", "learning_rate=1"])]
        for one in asked:
            said = one.communicate(timeout=PATIENCE)[1]
            assert one.returncode == 3 and "no connection within 10000 ms" in said, said


def test_a_name_that_is_too_long_is_refused():
    assert "too long" in expertctl("--server", "x" * 5000, "unload", "x.0", status=2)


if __name__ == "__main__":
    try:
        test_a_server_of_a_similar_name_is_not_taken()
        test_the_own_frontends_are_found_beside_others()
        test_a_dead_frontend_is_passed_over()
        test_what_may_be_two_servers_is_refused()
        test_a_dead_server_is_not_waited_for_as_long_as_a_change()
        test_a_name_that_is_too_long_is_refused()
    finally:
        zmq.Context.instance().destroy(linger=0)
        shutil.rmtree(folder)
