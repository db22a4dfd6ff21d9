"""For system tests of a whole server on another OpenCL implementation: a training step of every kind of block, at odd sizes."""
import sys

try:
    import numpy
except ImportError as missing:
    print(f"skipped: {missing} (Debian: python3-numpy)")
    sys.exit(77)
from support_server import pb  # noqa: E402

ODD = [("ffn", 33, "{}"), ("swiglu", 17, "{intermediate_size: 19}"), ("transformer", 12, "{sequence: 5, heads: 3}"),
       ("det_dropout", 9, "{}"), ("perceptron", 7, "{output_dim: 5}")]
OPTIMIZERS = ["adam", "sgd", "adamw", "adam", "sgd"]
EXPERTS = [f"{{uid: {block}.0, block: {block}, hidden_dim: {width}, arguments: {arguments}, max_batch_size: 4, optimizer: {optimizer}, learning_rate: 0.01}}"
           for (block, width, arguments), optimizer in zip(ODD, OPTIMIZERS)]


def ask(client, method, uid, tensors):
    client.last_id += 1
    header = pb.RequestHeader(version=1, request_id=client.last_id, method=method, uid=uid)
    names = {"float32": pb.FLOAT32, "int64": pb.INT64, "bool": pb.BOOL}
    for tensor in tensors:
        header.tensors.add(dtype=names[str(tensor.dtype)], shape=tensor.shape)
    client.socket.send_multipart([header.SerializeToString()] + [tensor.tobytes() for tensor in tensors])
    assert client.socket.poll(1800000), "no answer"
    frames = client.socket.recv_multipart()
    reply = pb.ReplyHeader.FromString(frames[0])
    assert reply.status == pb.OK, f"{uid}: {reply.message}"
    return [numpy.frombuffer(frame, "float32") for frame in frames[1:] if len(frame) % 4 == 0]


def rows(block, width, count, seed):
    random = numpy.random.default_rng(seed)
    shape = (count, 5, width) if block == "transformer" else (count, width)
    inputs = [random.standard_normal(shape).astype("float32")]
    if block == "transformer":
        mask = numpy.zeros((count, 5), "bool")
        mask[0, 3:] = True
        inputs.append(mask)
    if block == "det_dropout":
        inputs.append(random.integers(0, 2, shape).astype("int64"))
    gradient = random.standard_normal((count, 5) if block == "perceptron" else shape).astype("float32")
    return inputs, gradient


def train(server):
    """A forward of one row, a step with three, and a forward again: the answers."""
    answers = []
    server.start().wait_alive()
    client = server.client()
    for block, width, _ in ODD:
        inputs, gradient = rows(block, width, 3, 1)
        one = [tensor[:1] for tensor in inputs]
        answers += [ask(client, pb.FORWARD, f"{block}.0", one), ask(client, pb.BACKWARD, f"{block}.0", inputs + [gradient]),
                    ask(client, pb.FORWARD, f"{block}.0", one)]
    client.close()
    server.stop()
    return answers


def compare(answers, expected):
    for index, (mine, theirs) in enumerate(zip(answers, expected, strict=True)):
        for a, b in zip(mine, theirs, strict=True):
            numpy.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4, err_msg=f"{ODD[index // 3][0]}, call {index % 3}")
