#!/usr/bin/env python3
"""Four OpenCL devices of one server under load: runtimes are killed, a device is lost (in builds that have the point for it,
common/failpoint.h) and comes back. Whoever is asked meanwhile for an expert of another device does not notice."""
# timeout: 1800
# instrumented: devices are lost by a failpoint
import os, re, signal, struct, threading

os.environ["POCL_DEVICES"] = " ".join(["pthread"] * 4)
from support_server import BIN, PATIENCE, Server, pb, until, warm_cache, zmq

DEVICES = [f"device{number}" for number in range(4)]
EXIT_DEVICE_LOST = 3
with open(f"{BIN}/expertd-runtime", "rb") as program:
    HAS_POINTS = b"EXPERTD_FAILPOINT" in program.read()


class Load(threading.Thread):
    """Asks one device's experts, a few calls at a time, until it is told to stop, and looks at each answer."""
    IN_FLIGHT = 4

    def __init__(self, server, number):
        super().__init__()
        self.server, self.number, self.ended, self.error = server, number, threading.Event(), None
        self.answered = {}  # by status

    def run(self):
        client = self.server.client()
        try:
            waiting = set()
            while not self.ended.is_set() or waiting:
                while len(waiting) < self.IN_FLIGHT and not self.ended.is_set():
                    turn = client.last_id
                    uid = f"{'ffn' if turn % 2 else 'nop'}.{self.number}"
                    backward = turn % 4 > 1
                    waiting.add(client.send(pb.BACKWARD if backward else pb.FORWARD, uid, 1 + turn % 3, 4, 2 if backward else 1))
                assert client.socket.poll(PATIENCE * 1000), f"never answered: {waiting}"
                header, *tensors = client.socket.recv_multipart()
                reply = pb.ReplyHeader.FromString(header)
                waiting.remove(reply.request_id)
                name = pb.Status.Name(reply.status)
                if reply.status == pb.OK:
                    self.compare(reply.request_id - 1, tensors)
                else:
                    assert reply.status == pb.UNAVAILABLE and reply.message, f"{name}: {reply.message}"
                    self.ended.wait(0.01)  # as a client would, before it asks again
                self.answered[name] = self.answered.get(name, 0) + 1
        except Exception as error:  # for whoever joins
            self.error = error
        finally:
            client.close()

    @staticmethod
    def compare(turn, tensors):
        rows, backward = 1 + turn % 3, turn % 4 > 1
        assert len(tensors) == 1 and len(tensors[0]) == 16 * rows, "an answer of another shape"
        values = struct.unpack(f"<{4 * rows}f", tensors[0])
        if turn % 2 == 0:
            assert set(values) == {1.0}, values
        elif not backward:  # a LayerNorm's that is as it was made
            for row in range(rows):
                part = values[4 * row:4 * row + 4]
                mean = sum(part) / 4
                assert abs(mean) < 1e-3 and abs(sum((v - mean)**2 for v in part) / 4 - 1) < 1e-2, values

    def ok(self):
        assert self.error is None, f"{DEVICES[self.number]}: {self.error}"
        return self.answered.get("OK", 0)


def start(server, *devices, point=None):
    environment = dict(os.environ)
    environment.pop("EXPERTD_FAILPOINT", None)
    if point:
        environment["EXPERTD_FAILPOINT"] = point
    for device in devices:
        server.start_as(device, "expertd-runtime", "--device", device, env=environment)


def all_go_on(loads):
    before = [load.ok() for load in loads]
    until(lambda: all(load.ok() > was + 10 for load, was in zip(loads, before)), "all devices answer")


def undisturbed(loads, devices):
    for load in loads:
        if DEVICES[load.number] not in devices:
            assert set(load.answered) == {"OK"}, f"{DEVICES[load.number]} was not touched, and answered {load.answered}"


def main():
    cache = warm_cache(*DEVICES)
    hows = {"nop": "optimizer: none", "ffn": "optimizer: sgd, learning_rate: 0"}
    experts = [f"{{uid: {block}.{number}, block: {block}, hidden_dim: 4, max_batch_size: 8, {how}, device: {device}}}"
               for number, device in enumerate(DEVICES) for block, how in hows.items()]
    devices = ", ".join(f"{{name: {device}, device: '{number}', cache_dir: {cache}}}" for number, device in enumerate(DEVICES))
    with Server(experts, "restart_grace: 100", devices=devices) as server:
        start(server, *DEVICES[:3])
        lost = server.folder + "/lost"
        start(server, DEVICES[3], point=f"device.lost/{DEVICES[3]}=fail@{lost}")
        server.start("frontend")
        server.wait_alive()
        loads = [Load(server, number) for number in range(len(DEVICES))]
        try:
            for load in loads:
                load.start()
            all_go_on(loads)
            undisturbed(loads, [])

            # One, and two at once.
            for killed in (DEVICES[1:2], DEVICES[1:3]):
                for device in killed:
                    server.running[device].send_signal(signal.SIGKILL)
                for device in killed:
                    assert server.running[device].wait(PATIENCE) == -signal.SIGKILL
                start(server, *killed)
                all_go_on(loads)
            undisturbed(loads, DEVICES[1:3])

            if HAS_POINTS:
                with open(lost, "w"):
                    pass
                assert server.running[DEVICES[3]].wait(PATIENCE) == EXIT_DEVICE_LOST, "it ends, and says why"
                assert re.search(f"device '{DEVICES[3]}' is lost", server.log(DEVICES[3])), server.log(DEVICES[3])
                start(server, DEVICES[3], point=f"device.lost=fail@{lost}")
                assert server.running[DEVICES[3]].wait(PATIENCE) == EXIT_DEVICE_LOST, "nor does it start without its device"
                client = server.client()
                refused = client.call(pb.FORWARD, "ffn.3", 1, 4)
                assert refused.status == pb.UNAVAILABLE and DEVICES[3] in refused.message, refused
                client.close()
                all_go_on(loads[:3])
                os.unlink(lost)
                start(server, DEVICES[3])
                all_go_on(loads)
                assert loads[3].answered.get("UNAVAILABLE"), "it was away"
            undisturbed(loads, DEVICES[1:])
        finally:
            for load in loads:
                load.ended.set()
            for load in loads:
                if load.ident:
                    load.join()
        for load in loads:
            load.ok()
        assert "error" not in server.log(DEVICES[0]), server.log(DEVICES[0])
        server.stop(*DEVICES, "frontend")
        assert not server.segments(), server.segments()
    print("devices: ok" + ("" if HAS_POINTS else " (this build cannot lose one: make check SANITIZE=address,undefined, or FAILPOINTS=1)"))


main()
