#!/usr/bin/env python3
"""A client with 1,000 calls in flight beside one that calls one by one, by the real processes: the second is never refused,
and no more of the first one's calls go before its own than had a place in the pool when it came. The runtime is stopped
while calls arrive, so that who comes before whom does not depend on the machine."""
# timeout: 600
# once: an order, not what is done with memory; admission has unit tests
import signal

from support_server import PATIENCE, Server, pb, until, zmq

CALLS, CAPACITY, ROUNDS, SINGLES = 1000, 16, 5, 200


def state(process):
    with open(f"/proc/{process.pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]


def refuse(client, count):
    """Its next `count` answers, which have come behind a full pool."""
    for _ in range(count):
        reply = client.receive()
        assert reply.status == pb.RESOURCE_EXHAUSTED and 1 <= reply.retry_after_ms <= 1000, reply


def send(client, count):
    return [client.send(pb.FORWARD, "nop.0", rows=1) for _ in range(count)]


with Server([f"{{uid: nop.0, block: nop, hidden_dim: 4, max_batch_size: {CAPACITY // 2}, queue_tasks: {CAPACITY}}}"],
            "stall_timeout: 86400000") as server:
    server.start()
    server.wait_alive()
    runtime = server.running["runtime"]
    many, single, watcher = server.client(), server.client(), server.client()

    for turn in range(ROUNDS):
        runtime.send_signal(signal.SIGSTOP)
        until(lambda: state(runtime) == "T", "the runtime stands")
        waited = watcher.counters()["frontend.requests_waited"]
        first = send(many, CALLS)[:CAPACITY]
        refuse(many, CALLS - CAPACITY)
        called, = send(single, 1)
        until(lambda: watcher.counters()["frontend.requests_waited"] == waited + 1, "the single call waits for room")
        send(many, CALLS)
        refuse(many, CALLS)  # whatever the first one sends now would come behind it
        runtime.send_signal(signal.SIGCONT)
        reply = single.receive()
        assert (reply.status, reply.request_id) == (pb.OK, called), reply
        assert [(r.status, r.request_id) for r in (many.receive() for _ in first)] == [(pb.OK, i) for i in first]
        assert not many.socket.poll(0)

    # And while everything runs: each answer of the first is followed by its next call at once.
    refused = served = 0
    send(many, CALLS)
    for _ in range(SINGLES):
        send(single, 1)
        while not single.socket.poll(0):
            poller = zmq.Poller()
            for client in (many, single):
                poller.register(client.socket, zmq.POLLIN)
            assert poller.poll(PATIENCE * 1000), "no answer"
            while many.socket.poll(0) and not single.socket.poll(0):
                status = many.receive().status
                assert status in (pb.OK, pb.RESOURCE_EXHAUSTED), status
                refused, served = refused + (status != pb.OK), served + (status == pb.OK)
                send(many, 1)
        assert single.receive().status == pb.OK
    assert refused > 0 and served > 0, (refused, served)
    for _ in range(CALLS):
        many.receive()
    until(lambda: watcher.counters()["frontend.in_flight"] == 0, "nothing is left")
    for client in (many, single, watcher):
        client.close()
    server.stop()
print(f"{SINGLES + ROUNDS} single calls, none refused; beside them {refused} of another's were, and {served} were served")
