"""An echo over WebSockets, and a client that tries it, by the library websockets: websocket.py serve|ask PORT."""

import asyncio
import sys

import websockets


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def serve(port):
    async with websockets.serve(echo, "127.0.0.1", port, max_size=None):
        await asyncio.Event().wait()


async def ask(port):
    async with websockets.connect(f"ws://127.0.0.1:{port}/chat", max_size=None) as socket:
        for message in ["text", "\u2713" * 1000, b"", bytes(range(256)) * 8192]:
            await socket.send(message)
            assert await socket.recv() == message
        # Many on their way at once.
        messages = [str(number) * (number % 100) for number in range(1000)]
        sending = asyncio.create_task(send(socket, messages))
        assert [await socket.recv() for _ in messages] == messages
        await sending
        await asyncio.wait_for(await socket.ping(), 30)
        await socket.close(4000, "enough")
        assert (socket.close_code, socket.close_reason) == (4000, "enough")


async def send(socket, messages):
    for message in messages:
        await socket.send(message)


async def ask_at_once(port):
    await asyncio.gather(*(ask(port) for _ in range(4)))
    print("fine")


what, port = sys.argv[1], int(sys.argv[2])
asyncio.run(serve(port) if what == "serve" else ask_at_once(port))
