#!/usr/bin/env python3
"""A BACKWARD with ids is applied at most once, also when the frontend and the runtime that applied it are no more: over clean
restarts of both, in either order and with pools of another size, as in a rolling upgrade; and over pools that are made anew
under a running server."""
# timeout: 1200
import os, signal, tempfile

from support_server import Server, pb, until

CLIENT = b"sixteen bytes id"


def config(server, queue_rows):
    """The same server, with pools that the old ones are of no use for."""
    with open(server.config) as file:
        text = file.read()
    with open(server.config, "w") as file:
        file.write(text.replace("queue_rows: 64", f"queue_rows: {queue_rows}"))


def backward(server, request_id):
    client = server.client()
    reply = client.call(pb.BACKWARD, "ffn.0", 3, 8, 2, request_id, client_id=CLIENT)
    updates = client.call(pb.INFO, "ffn.0").info.update_count
    client.close()
    return reply.status, updates


def applied_once(server, last):
    """All so far are known, and the next one is new."""
    for request_id in range(1, last + 1):
        assert backward(server, request_id) == (pb.ALREADY_EXISTS, last), request_id
    assert backward(server, last + 1) == (pb.OK, last + 1)


with tempfile.TemporaryDirectory() as checkpoints, \
        Server(["{uid: ffn.0, block: ffn, hidden_dim: 8, max_batch_size: 16, queue_rows: 64, optimizer: sgd}\n"
                f"checkpoint: {{dir: {checkpoints}, interval: 0}}"]) as server:
    server.start()
    server.wait_alive()
    assert backward(server, 1) == (pb.OK, 1)
    assert backward(server, 1) == (pb.OK, 1), "its answer is kept"
    assert backward(server, 2) == (pb.OK, 2)
    last = 2
    for order in (("runtime", "frontend"), ("frontend", "runtime")):
        for program in order:
            server.stop(program)
            if program == "runtime":
                assert not server.segments(), "a clean end leaves no segment"
                config(server, 128 + last)
            server.start(program)
        server.wait_alive()
        applied_once(server, last)
        last += 1

    said = server.log("runtime").count("made anew")
    server.running["runtime"].send_signal(signal.SIGSTOP)  # all of them are gone when it looks
    for segment in server.segments():
        os.unlink(segment)
    server.running["runtime"].send_signal(signal.SIGCONT)
    until(lambda: server.log("runtime").count("made anew") > said, "pools are made anew")
    server.kill("frontend")
    server.start("frontend")
    server.wait_alive()
    applied_once(server, last)
    server.stop()
print("at most once: ok")
