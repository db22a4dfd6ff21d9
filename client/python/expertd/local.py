"""Tensors to and from a server on the same host through shared memory (proto/PROTOCOL.md, "On the same host"). A
connection to the loopback or to ipc:// turns to it by itself, where the server has it, and goes on over ZeroMQ where
something of it cannot be.

The memory is of this process and one server's alone; answers are copied out of it, so that what the program gets is as
private as any tensor, also in a forked child."""
from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
from typing import Any, Dict, List, Optional, Tuple

import numpy

__all__ = ["use"]

DEFAULT_MEMORY = 256 << 20
MAGIC, VERSION = b"expertdL", 1
SLOTS, READY = 1024, 0x7FFFFFFF
PACKET_MAX, HEADER_MAX, TENSORS_MAX = 32 << 10, 16 << 10, 16
FIRST_ROOM = 4096  # bytes for an answer of which nothing is known, at least
_ALIGNING = 64 * TENSORS_MAX  # that an answer's tensors lose at most by beginning at multiples of 64
_WELCOME, _HELLO = struct.Struct("<8sIIQ16s"), struct.Struct("<8sIIQ")
_REQUEST, _REPLY, _SPAN = struct.Struct("<IIIIQQ"), struct.Struct("<IIIIQ"), struct.Struct("<QQ")
_REQUESTS = [struct.Struct("<IIIIQQ" + "QQ" * tensors) for tensors in range(TENSORS_MAX + 1)]
_PADDING = [b"\0" * n for n in range(8)]
_F_ADD_SEALS, _SEALS = 1033, 1 | 2 | 4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW: pages that are there stay
_HOSTS = ("ipc://", "tcp://127.", "tcp://localhost:", "tcp://[::1]:")

_used: Optional[int] = None


def use(memory: Optional[int]) -> None:
    """How many bytes a connection that is made from now on shares at most, page by page as they are needed; 0: all goes
    over ZeroMQ. None: what EXPERTD_LOCAL_MEMORY in the environment says, or else 256 MiB."""
    global _used
    if memory is not None and memory < 0:
        raise ValueError(f"{memory} bytes of shared memory were asked for")
    _used = memory


def memory_for(endpoint: str) -> int:
    if not endpoint.startswith(_HOSTS) or not hasattr(os, "memfd_create"):
        return 0
    if _used is not None:
        return _used
    given = os.environ.get("EXPERTD_LOCAL_MEMORY", "")
    return int(given) if given.isdigit() else DEFAULT_MEMORY


class Lost(Exception):
    """The server's end of a link is gone, or what it says cannot be."""


class Frame:
    """A reply's tensor, in memory of its own; as pyzmq's."""
    __slots__ = ("buffer",)

    def __init__(self, buffer: Any):
        self.buffer = buffer

    def __len__(self) -> int:
        return len(self.buffer)


class Heap:
    """Blocks of one file without name, which cannot shrink. Four sizes to each power of two; what is known of blocks lies
    elsewhere, where the server cannot write."""

    def __init__(self, size: int):
        self.size, self._used, self.blocks = size, 0, 0  # blocks: that are taken
        self._free: Dict[int, List[int]] = {}
        self.fd = os.memfd_create("expertd-client", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            fcntl.fcntl(self.fd, _F_ADD_SEALS, _SEALS)
            self.bytes = numpy.frombuffer(mmap.mmap(self.fd, size), numpy.uint8)
        except BaseException:
            os.close(self.fd)
            raise

    @staticmethod
    def rounded(size: int) -> int:
        step = 1 << max(6, (size - 1).bit_length() - 3) if size > 64 else 64
        return (size + step - 1) // step * step

    def take(self, size: int) -> Optional[Tuple[int, int]]:
        """(where, how many bytes) of a block of at least so many, aligned to 64. None: it is full."""
        size = self.rounded(size)
        found = self._free.get(size)
        if found:
            at = found.pop()
        else:
            if self.blocks == 0 and size > self.size - self._used:
                self._free, self._used = {}, 0  # cut anew: sizes that are asked for no more do not stay
            at = self._used
            if size > self.size - at:
                larger = min((other for other, blocks in self._free.items() if other > size and blocks), default=0)
                if not larger:
                    return None
                at, size = self._free[larger].pop(), larger
            else:
                self._used = at + size
        self.blocks += 1
        return at, size

    def give(self, block: Tuple[int, int]) -> None:
        at, size = block
        self.blocks -= 1
        self._free.setdefault(size, []).append(at)


class _Slot:
    """A request on its way: its memory is used for nothing else until it is answered, also when nobody waits any more."""
    __slots__ = ("call", "blocks", "head", "spans", "room")

    def __init__(self, call: Any, blocks: List[Tuple[int, int]], head: bytes, spans: List[int], room: Tuple[int, int]):
        self.call, self.blocks, self.head, self.spans, self.room = call, blocks, head, spans, room


class Link:
    """The socket to a server that greets with `instance`, the memory that is shared with it, and the requests on their
    way. One thread at a time. OSError where it cannot connect."""

    def __init__(self, path: str, instance: bytes, memory: int):
        self.ready, self.heap = False, None  # type: bool, Optional[Heap]
        self._instance, self._memory = instance, memory
        self._slots: Dict[int, _Slot] = {}
        self._free = list(range(SLOTS - 1, -1, -1))
        self._row_bytes: Dict[Tuple[str, bool], int] = {}  # of an expert's answers
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.setblocking(False)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise
        self.fd = self._socket.fileno()

    def close(self) -> None:
        """The memory is unmapped when the last that looks at it is gone."""
        self.ready = False
        self._socket.close()
        if self.heap is not None and self.heap.fd >= 0:
            os.close(self.heap.fd)
            self.heap.fd = -1
        self._slots, self.heap = {}, None

    def forked(self) -> None:
        """In a child, which inherits it: the server is to notice the parent's end all the same."""
        self.ready = False
        try:
            os.close(self._socket.detach())
        except OSError:
            pass

    # ---- sending

    def send(self, call: Any, head: bytes) -> bool:
        """False: not this way, or not now; then nothing was sent."""
        frames = call.frames
        if not self._free or len(head) > HEADER_MAX or len(frames) > TENSORS_MAX:
            return False
        assert self.heap is not None
        sizes = [frame.nbytes for frame in frames]
        total = 0
        for size in sizes:
            total += (size + 63) & ~63
        known = self._row_bytes.get((call.uid, call.backward))
        room = ((max(total, FIRST_ROOM) if known is None else known * call.rows) + _ALIGNING + 63) & ~63
        block = self.heap.take(total + room)
        if block is None:
            return False
        at, memory = block[0], self.heap.bytes
        spans: List[int] = []
        for frame, size in zip(frames, sizes):
            if size:
                memory[at:at + size] = numpy.frombuffer(frame, numpy.uint8)
            spans += (at, size)
            at += (size + 63) & ~63
        slot = self._free.pop()
        made = self._slots[slot] = _Slot(call, [block], head, spans, (at, room))
        if self._send(slot, made):
            return True
        self._end(slot)
        return False

    def _send(self, slot: int, made: _Slot) -> bool:
        header, spans = made.head, made.spans
        tensors = len(spans) // 2
        size = 32 + 16 * tensors + len(header)
        padding = -size & 7
        try:
            self._socket.send(_REQUESTS[tensors].pack(size + padding, len(header), slot, tensors, *made.room, *spans)
                              + header + _PADDING[padding])
        except OSError:  # it does not read, or is gone, which receive() hears of
            return False
        return True

    def _end(self, slot: int) -> None:
        assert self.heap is not None
        for block in self._slots.pop(slot).blocks:
            self.heap.give(block)
        self._free.append(slot)

    # ---- receiving

    def receive(self) -> Tuple[List[Tuple[bytes, List[Frame]]], List[Any]]:
        """What one packet has: replies, as a header and tensors each, and calls that have to go another way. Raises Lost."""
        try:
            packet = self._socket.recv(PACKET_MAX + 1)
        except (BlockingIOError, InterruptedError):
            return [], []
        except OSError as error:
            raise Lost from error
        if not packet or len(packet) > PACKET_MAX:
            raise Lost
        if self.heap is None:
            self._greet(packet)
            return [], []
        replies: List[Tuple[bytes, List[Frame]]] = []
        elsewhere: List[Any] = []
        at = 0
        while at < len(packet):
            at += self._take(packet, at, replies, elsewhere)
        return replies, elsewhere

    def _greet(self, packet: bytes) -> None:
        if len(packet) != _WELCOME.size:
            raise Lost
        magic, version, slots, most, instance = _WELCOME.unpack(packet)
        if magic != MAGIC or version != VERSION or slots < SLOTS or instance != self._instance:
            raise Lost
        try:
            heap = self.heap = Heap(min(self._memory, most) // mmap.PAGESIZE * mmap.PAGESIZE)
            socket.send_fds(self._socket, [_HELLO.pack(MAGIC, VERSION, 0, heap.size)], [heap.fd])
        except (OSError, ValueError) as error:
            raise Lost from error
        os.close(heap.fd)  # mapped here, and the server's now
        heap.fd = -1

    def _take(self, packet: bytes, at: int, replies: List[Tuple[bytes, List[Frame]]], elsewhere: List[Any]) -> int:
        left = len(packet) - at
        if left < _REPLY.size:
            raise Lost
        size, header_size, slot, tensors, wanted = _REPLY.unpack_from(packet, at)
        begin = at + _REPLY.size + _SPAN.size * tensors
        if size > left or tensors > TENSORS_MAX or size != (begin - at + header_size + 7) & ~7:
            raise Lost
        if slot == READY:
            if self.ready:
                raise Lost
            self.ready = True
            return int(size)
        made = self._slots.get(slot)
        if made is None:
            raise Lost
        if header_size == 0 and wanted:
            self._again(slot, made, wanted, elsewhere)
            return int(size)
        if header_size:
            replies.append((packet[begin:begin + header_size], self._frames(packet, begin, tensors, made)))
        self._end(slot)
        return int(size)

    def _frames(self, packet: bytes, begin: int, tensors: int, made: _Slot) -> List[Frame]:
        assert self.heap is not None
        low, room = made.room
        memory, frames, taken = self.heap.bytes, [], 0
        for i in range(tensors):
            at, size = _SPAN.unpack_from(packet, begin - _SPAN.size * (tensors - i))
            if at < low or at + size > low + room:
                raise Lost
            buffer = numpy.empty(size, numpy.uint8)
            buffer[:] = memory[at:at + size]
            frames.append(Frame(buffer))
            taken += size
        if tensors:
            self._remember(made.call, taken)
        return frames

    def _again(self, slot: int, made: _Slot, wanted: int, elsewhere: List[Any]) -> None:
        """Nothing was done, as the room was too small."""
        assert self.heap is not None
        block = self.heap.take(wanted) if wanted <= self.heap.size else None
        if block is not None:
            made.blocks.append(block)
            made.room = (block[0], block[1])
            if self._send(slot, made):
                return
        elsewhere.append(made.call)
        self._end(slot)

    def _remember(self, call: Any, size: int) -> None:
        if len(self._row_bytes) >= 4096:
            self._row_bytes.clear()
        self._row_bytes[call.uid, call.backward] = -(-size // max(1, call.rows))


def connect(path: str, instance: bytes, memory: int) -> Optional[Link]:
    """None: it cannot be; another user's, a container's."""
    try:
        return Link(path, instance, memory)
    except (OSError, ValueError):
        return None


def of_pong(pong: Any) -> Optional[Tuple[str, bytes]]:
    """Where a server that answered a ping takes clients of its host, and what it greets them with."""
    local: Any = pong.local
    return (local.path, local.instance) if local.path and len(local.instance) == 16 else None


