#!/usr/bin/env python3
"""Many experts' forwards at once, whose batches go to the device together: under load, with one asker's rows NaN, with experts
among them that train, and with some askers that are gone before they are answered, each answer is bit for bit what it is alone."""
# timeout: 600
import array, math, os, random

from support_server import Server, pb, until

HIDDEN, EXPERTS, LEARNERS, ROWS, CLIENTS, ROUNDS, POISONED = 64, 20, 3, 6, 4, 12, 7


def floats(seed, rows):
    drawn = random.Random(seed)
    return array.array("f", (drawn.uniform(-1, 1) for _ in range(rows * HIDDEN))).tobytes()


def send(client, method, uid, rows, data, tensors=1, **fields):
    client.last_id += 1
    header = pb.RequestHeader(version=1, request_id=client.last_id, method=method, uid=uid, **fields)
    for _ in range(tensors):
        header.tensors.add(dtype=pb.FLOAT32, shape=[rows, HIDDEN])
    client.socket.send_multipart([header.SerializeToString()] + [data[:rows * HIDDEN * 4]] * tensors)
    return client.last_id


def receive(client):
    assert client.socket.poll(600000), "no answer"
    first, *frames = client.socket.recv_multipart()
    return pb.ReplyHeader.FromString(first), frames


def entry(uid, more):
    return f'{{uid: "{uid}", block: swiglu, hidden_dim: {HIDDEN}, arguments: {{intermediate_size: 96}}, max_batch_size: 16, {more}}}'


rows_of = {f"frozen.{e}": floats(e, ROWS) for e in range(EXPERTS)}
nan = array.array("f", [math.nan] * (ROWS * HIDDEN)).tobytes()
with Server([entry(f"frozen.[0:{EXPERTS}]", "optimizer: none"), entry(f"learner.[0:{LEARNERS}]", "optimizer: sgd")]) as server:
    server.start().wait_alive()
    first = server.client()
    alone = {}
    for uid, data in rows_of.items():
        send(first, pb.FORWARD, uid, ROWS, data)
        reply, frames = receive(first)
        assert reply.status == pb.OK, reply
        alone[uid] = bytes(frames[0])
    ids = [os.urandom(16) for _ in range(CLIENTS)]
    drawn, clients, right, poisoned, steps = random.Random(1), [server.client() for _ in range(CLIENTS)], 0, 0, 0
    for turn in range(ROUNDS):
        asked = []
        for number, client in enumerate(clients):
            asked.append({})
            for uid in drawn.sample(sorted(rows_of), EXPERTS):
                rows, bad = drawn.randint(1, ROWS), number == 0 and uid == f"frozen.{POISONED}"
                asked[-1][send(client, pb.FORWARD, uid, rows, nan if bad else rows_of[uid])] = (uid, rows, bad)
            learner = f"learner.{drawn.randrange(LEARNERS)}"
            asked[-1][send(client, pb.BACKWARD, learner, 2, floats(turn, 2), tensors=2, client_id=ids[number])] = (learner, 2, False)
            steps += 1
        gone = server.client()
        for uid in rows_of:
            send(gone, pb.FORWARD, uid, 1, rows_of[uid])
        gone.close()
        for number, client in enumerate(clients):
            for _ in range(len(asked[number])):
                reply, frames = receive(client)
                uid, rows, bad = asked[number].pop(reply.request_id)
                assert reply.status == pb.OK, (uid, reply)
                answer = bytes(frames[0])
                if bad:
                    assert all(math.isnan(v) for v in array.array("f", answer)), f"{uid}: what was made of NaN is a number"
                    poisoned += 1
                elif uid in rows_of:
                    assert answer == alone[uid][:rows * HIDDEN * 4], f"{uid}: another answer than alone, in turn {turn}"
                    right += 1
            assert not asked[number]
    assert poisoned == ROUNDS and right == ROUNDS * (CLIENTS * EXPERTS - 1)
    applied = until(lambda: sum(v for k, v in first.counters().items() if k.endswith(".steps")), "steps are counted")
    assert 0 < applied <= steps, (applied, steps)
    server.stop()
print(f"ok: {right} answers are what they are alone, {poisoned} are of NaN, {int(applied)} steps of {steps} backwards")
