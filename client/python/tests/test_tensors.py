"""Tensors of frames, which are the server's, and so hostile until checked."""
import pytest
import torch
import zmq

import expertd
from expertd import messages
from expertd.tensors import COPY_BELOW, describe, dtype_number, from_frames, to_frame

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool]


class Memory:
    """As a frame of pyzmq's, at any address."""

    def __init__(self, data, offset=0):
        self.buffer = memoryview(bytearray(offset) + bytearray(data))[offset:]

    def __len__(self):
        return self.buffer.nbytes


def described(dtype, shape):
    return describe(0, messages.server.Tensor(dtype=dtype_number(dtype), shape=shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 2 * COPY_BELOW // 8])
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_a_frame_becomes_the_tensor_that_it_was(dtype, rows, offset):
    torch.manual_seed(0)
    tensor = (10 * torch.randn(rows, 2, 4)).to(dtype)
    number, shape, codec, frame = to_frame(tensor)
    assert (number, codec) == (dtype_number(dtype), 0)
    (back,) = from_frames([described(dtype, shape)], [Memory(frame.cast("B"), offset)])
    assert back.dtype == dtype and back.shape == tensor.shape and torch.equal(back, tensor)
    assert back.data_ptr() % back.element_size() == 0
    back.zero_()  # it is the program's own
    assert back.is_contiguous() and not back.any()


def test_a_parameter_is_sent_without_its_history():
    number, shape, _, frame = to_frame(torch.nn.Parameter(torch.ones(2, 3)) * 2)
    assert shape == (2, 3) and bytes(frame) == torch.full((2, 3), 2.0).numpy().tobytes()


def test_a_conjugates_imaginary_part_is_sent_as_what_it_is():
    part = torch.complex(torch.rand(2, 3), torch.rand(2, 3)).conj().imag
    assert part.is_neg() and bytes(to_frame(part)[3]) == (part + 0).numpy().tobytes()


@pytest.mark.parametrize("tensor", [torch.rand(4, 6).t(), torch.rand(4, 6)[:, 1:3], torch.rand(3, 1).expand(3, 5)], ids=["turned", "part", "expanded"])
def test_what_is_not_row_by_row_is_sent_row_by_row(tensor):
    assert bytes(to_frame(tensor)[3]) == tensor.numpy().tobytes()


def test_a_large_frame_of_zeromqs_is_not_copied():
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as other:
        one.bind("inproc://frames")
        other.connect("inproc://frames")
        one.send(torch.arange(COPY_BELOW, dtype=torch.float32).numpy().tobytes())
        frame = other.recv(copy=False)
        (tensor,) = from_frames([described(torch.float32, [COPY_BELOW // 4, 4])], [frame])
        view = torch.frombuffer(frame.buffer, dtype=torch.float32)
        assert tensor.data_ptr() == view.data_ptr() and torch.equal(tensor.reshape(-1), torch.arange(COPY_BELOW, dtype=torch.float32))
        del frame, view
        assert tensor[-1, -1] == COPY_BELOW - 1  # which holds the memory


@pytest.mark.parametrize("shape", [[3], [1 << 62, 4], [1 << 63, 1 << 63], [(1 << 64) - 1], [2] * 8, [0, 5], []], ids=str)
def test_shapes_that_the_frame_has_not_are_the_servers_error(shape):
    with pytest.raises(expertd.Internal):
        from_frames([described(torch.float32, shape)], [Memory(bytes(64))])


def test_no_rows_are_an_empty_tensor():
    (tensor,) = from_frames([described(torch.bfloat16, [0, 5])], [Memory(b"")])
    assert tensor.shape == (0, 5) and tensor.dtype == torch.bfloat16
