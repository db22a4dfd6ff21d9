#!/usr/bin/env python3
# timeout: 900
# instrumented: devices are lost by a failpoint
"""With on_device_loss: move, the experts of a device that is lost go to another one, as their checkpoints have them, and are
asked and trained there; the other experts notice nothing. What comes back has what was left to it, and gets the others when they are loaded again."""
import os, signal

os.environ["POCL_DEVICES"] = "pthread pthread"
from support_server import BIN, PATIENCE, Server, pb, until, warm_cache
from test_changes import Load, run, uids

EXIT_DEVICE_LOST, EXIT_CANNOT_START = 3, 1
ONE_DEVICE = {**os.environ, "POCL_DEVICES": "pthread"}  # the second is gone
with open(f"{BIN}/expertd-runtime", "rb") as program:
    HAS_POINTS = b"EXPERTD_FAILPOINT" in program.read()
MOVED = ["ffn.0", "ffn.1", "ffn.2"]


def train(client, uid, request_id=None):
    reply = client.call(pb.BACKWARD, uid, 2, 4, 2, request_id, client_id=b"0123456789abcdef")
    return reply.status, reply.message


def updates(client, uid):
    return client.call(pb.INFO, uid).info.update_count


def device_of(client, uid):
    return client.call(pb.INFO, uid).info.device


def main():
    cache = warm_cache("here", "away")
    experts = ["{uid: steady.0, block: nop, hidden_dim: 4, max_batch_size: 64, device: here}",
               "{uid: 'ffn.[0:3]', block: ffn, hidden_dim: 4, max_batch_size: 8, optimizer: sgd, learning_rate: 0.125, device: away}"]
    devices = ", ".join(f"{{name: {name}, device: '{number}', spare_experts: 0, cache_dir: {cache}}}"
                        for number, name in (("1", "away"), ("0", "here")))
    with Server(experts, "restart_grace: 100", server="on_device_loss: move", devices=devices) as server:
        with open(server.config, "a") as file:
            file.write(f"checkpoint: {{dir: {server.folder}/learned, interval: 0}}\n")
        lost = server.folder + "/lost"

        def start(device, **options):
            server.start_as(device, "expertd-runtime", "--device", device, **options)

        start("here")
        start("away", env={**os.environ, "EXPERTD_FAILPOINT": f"device.lost/away=fail@{lost}"} if HAS_POINTS else dict(os.environ))
        server.start("frontend").wait_alive()
        client, load = server.client(), Load(server)
        try:
            for uid in MOVED:
                assert train(client, uid)[0] == pb.OK
            applied = client.last_id  # of ffn.2, and in its checkpoint
            assert client.call(pb.CHECKPOINT).status == pb.OK

            # One that is killed has not lost its device: it is waited for, longer than what it had is.
            server.running["away"].send_signal(signal.SIGSTOP)
            asked = client.send(pb.FORWARD, "ffn.1", 1, 4)
            assert client.call(pb.PING).status == pb.OK  # so the other one waits in the pool
            server.kill("away")
            reply = client.receive()
            assert reply.request_id == asked and reply.status == pb.UNAVAILABLE, reply
            start("away", env={**os.environ, "EXPERTD_FAILPOINT": f"device.lost/away=fail@{lost}"} if HAS_POINTS else dict(os.environ))
            server.wait_alive()
            assert device_of(client, "ffn.0") == "away"
            assert train(client, "ffn.0")[0] == pb.OK and updates(client, "ffn.0") == 2

            if HAS_POINTS:
                open(lost, "w").close()
                client.call(pb.FORWARD, "ffn.1", 1, 4)  # answered, if only that it is away
                assert server.running["away"].wait(PATIENCE) == EXIT_DEVICE_LOST, server.log("away")
            else:
                server.kill("away")
                start("away", env=ONE_DEVICE)
                assert server.running["away"].wait(PATIENCE) == EXIT_CANNOT_START, server.log("away")
            until(lambda: "of its experts are on other devices now" in server.log("frontend"), "they are moved")
            server.wait_alive()
            assert uids(client) == MOVED + ["steady.0"]
            for uid in MOVED:
                assert device_of(client, uid) == "here", uid
                assert client.call(pb.FORWARD, uid, 2, 4).status == pb.OK
                assert updates(client, uid) == 1, "as its last checkpoint has it"
            # What the checkpoint knows of is not applied again. The frontend may still have the answer, or knows that it was.
            assert train(client, "ffn.2", applied)[0] in (pb.OK, pb.ALREADY_EXISTS) and updates(client, "ffn.2") == 1
            client.last_id += 100
            assert train(client, "ffn.2")[0] == pb.OK and updates(client, "ffn.2") == 2

            # Restarted as it is supervised, it finds no device, and that changes nothing.
            start("away", env=ONE_DEVICE)
            assert server.running["away"].wait(PATIENCE) == EXIT_CANNOT_START
            # It is back, and has no experts: they stay where they are, over restarts of the other one's runtime too.
            start("away")
            until(lambda: "device 'away' is up with 0 experts" in server.log("frontend"), "the device is back")
            load.end()
            server.stop("here")
            start("here")
            server.wait_alive()
            assert [device_of(client, uid) for uid in MOVED] == ["here"] * 3 and updates(client, "ffn.2") == 2

            # And go home when somebody says so, with what they have learned meanwhile.
            for uid in MOVED:
                run(server, "unload", uid)
                run(server, "load", uid)
            assert [device_of(client, uid) for uid in MOVED] == ["away"] * 3
            assert updates(client, "ffn.2") == 2 and train(client, "ffn.2")[0] == pb.OK

            # A reload moves what trains in two steps, and says so.
            with open(server.config) as file:
                text = file.read()
            with open(server.config, "w") as file:
                file.write(text.replace("learning_rate: 0.125, device: away", "learning_rate: 0.125, device: here"))
            run(server, "reload", status=5, said="expertctl unload ffn.0 (and 2 more, likewise), then reload again")
            assert [device_of(client, uid) for uid in MOVED] == ["away"] * 3, "what is refused changes nothing"
            for uid in MOVED:
                run(server, "unload", uid)
            assert run(server, "reload")["loaded"] == 3
            assert [device_of(client, uid) for uid in MOVED] == ["here"] * 3 and updates(client, "ffn.2") == 3
        finally:
            load.end()
            client.close()
        server.stop("here", "away", "frontend")
        assert not server.segments(), server.segments()
    print("device loss: ok")


main()
