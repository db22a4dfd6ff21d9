"""Headers of replies, which are the server's, and so hostile until checked. What is remembered of them makes no difference."""
import pytest

import expertd
from expertd import messages
from expertd.replies import REMEMBERED, REMEMBERED_BYTES, Replies

pb = messages.server


def header(number, **fields):
    return pb.ReplyHeader(version=1, request_id=number, **fields).SerializeToString()


@pytest.mark.parametrize("number", [1, 127, 128, 300, 1 << 32, (1 << 63) - 1])
def test_answers_that_differ_by_their_id_are_read_once(number):
    replies = Replies(pb.ReplyHeader)
    fields = {"tensors": [pb.Tensor(dtype=1, shape=[256, 1024])]}
    first, second = replies.read(header(5, **fields)), replies.read(header(number, **fields))
    assert (first[0], second[0]) == (5, number) and second[1] is first[1]
    assert (first[1].version, first[1].status) == (1, 0)
    assert [tuple(one[1:3]) + one[4:] for one in first[1].described()] == [((256, 1024), 0, 1 << 20)]


def test_other_answers_are_others():
    replies = Replies(pb.ReplyHeader)
    shapes = [[2, 3], [3, 2], [6]]
    read = [replies.read(header(7, tensors=[pb.Tensor(dtype=1, shape=shape)])) for shape in shapes]
    assert [list(reply.described()[0].shape) for _, reply in read] == shapes
    refused = replies.read(header(7, status=5, message="no expert"))[1]
    assert (refused.status, refused.message, list(refused.described())) == (5, "no expert", [])


@pytest.mark.parametrize("data", [
    pb.ReplyHeader(request_id=9).SerializeToString(),  # no version
    pb.ReplyHeader(version=2, request_id=9).SerializeToString(),
    header(3) + b"\x10\x09",  # two ids, of which the last one counts
    b"\x10\x09\x08\x01",  # behind each other otherwise
    header(9) + b"\x08\x02",  # two versions
    header(9) + b"\x10\x00",
    header(9) + b"\x08\x00",
    header(9, status=3) + b"\x10\x00",
    b"\x08\x01\x10\x89\x80\x00",  # an id that is longer than it has to be
    header((1 << 64) - 1),
])
def test_a_header_in_another_form_is_what_protobuf_says_whenever_it_comes(data):
    replies, whole = Replies(pb.ReplyHeader), pb.ReplyHeader.FromString(data)
    for _ in range(2):
        number, reply = replies.read(data)
        assert (number, reply.version) == (whole.request_id, whole.version)
        replies.read(header(3))


@pytest.mark.parametrize("data", [b"\x08\x01\x10", b"\x08\x01\x10\x80", b"\x08\x01\x10" + 12 * b"\x80", b"\x08\x01\x10\x05\x2a\xff", b"\xff"])
def test_what_is_no_message_is_refused_each_time(data):
    replies = Replies(pb.ReplyHeader)
    for _ in range(2):
        with pytest.raises(Exception) as refused:
            replies.read(data)
        assert "Decode" in type(refused.value).__name__


def test_what_is_remembered_has_an_end():
    replies = Replies(pb.ReplyHeader)
    for i in range(3 * REMEMBERED):
        replies.read(header(i, message=f"sentence {i}"))
        replies.read(header(i, message=REMEMBERED_BYTES * "m" + str(i)))
    assert len(replies._known) <= REMEMBERED
    assert all(len(rest) <= REMEMBERED_BYTES for rest in replies._known)


@pytest.mark.parametrize("tensor", [{"dtype": 99, "shape": [1]}, {"dtype": 1, "shape": 8 * [1]}, {"dtype": 8, "shape": [1], "codec": 2}], ids=str)
def test_tensors_that_cannot_be_are_the_servers_error_each_time(tensor):
    _, reply = Replies(pb.ReplyHeader).read(header(1, tensors=[pb.Tensor(**tensor)]))
    for _ in range(2):
        with pytest.raises(expertd.Internal):
            reply.described()
