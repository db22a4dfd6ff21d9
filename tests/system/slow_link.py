"""A slow link for test_slow_link.sh, where the kernel has none (tc netem): passes TCP connections on, all of them together at
so many bytes a second in each direction, each byte after a delay, and some after another round trip, as if they had been
lost and sent once more.

    slow_link.py LISTEN_HOST:PORT TO_HOST:PORT BYTES_PER_SECOND DELAY_S LOSS
"""
import asyncio
import random
import sys

CHUNK, SEGMENT = 4096, 1460


class Direction:
    """What all connections share: whose turn it is, and when the link is free again."""

    def __init__(self, speed):
        self.speed, self.turn, self.free_at = speed, asyncio.Lock(), 0.0

    async def carry(self, count):
        async with self.turn:
            now = asyncio.get_running_loop().time()
            self.free_at = max(self.free_at, now) + count / self.speed
            await asyncio.sleep(self.free_at - now)


async def pump(reader, writer, direction, delay, loss):
    loop, chance, due = asyncio.get_running_loop(), random.Random(1), 0.0
    arriving = asyncio.Queue()

    async def deliver():
        while (item := await arriving.get()) is not None:
            when, data = item
            await asyncio.sleep(max(0.0, when - loop.time()))
            writer.write(data)
            await writer.drain()
        writer.close()

    delivery = asyncio.create_task(deliver())
    try:
        while data := await reader.read(CHUNK):
            await direction.carry(len(data))
            lost = chance.random() < loss * len(data) / SEGMENT
            due = max(due, loop.time() + delay + (2 * delay if lost else 0.0))  # what comes behind it waits for it
            arriving.put_nowait((due, data))
    except ConnectionError:
        pass
    arriving.put_nowait(None)
    await asyncio.gather(delivery, return_exceptions=True)


async def main():
    (host, port), (to_host, to_port) = (text.rsplit(":", 1) for text in sys.argv[1:3])
    speed, delay, loss = map(float, sys.argv[3:6])
    there, back = Direction(speed), Direction(speed)

    async def connect(reader, writer):
        up_reader, up_writer = await asyncio.open_connection(to_host, int(to_port))
        await asyncio.gather(pump(reader, up_writer, there, delay, loss), pump(up_reader, writer, back, delay, loss))

    server = await asyncio.start_server(connect, host, int(port), limit=CHUNK)
    async with server:
        await server.serve_forever()


asyncio.run(main())
