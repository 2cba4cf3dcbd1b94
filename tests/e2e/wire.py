"""HTTP/1.1 on a thread of its own, for the servers of ours that traild is tested against."""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass


@dataclass
class Request:
    method: str
    path: str
    head: bytes
    headers: dict
    body: bytes = b""


class Server:
    """A server on a free port of loopback, from `with` to its end. `choose(…, rng)` picks the faults; it may be replaced meanwhile."""

    def __init__(self, seed=0, choose=None, delay=1.0):
        self.choose = choose or no_fault
        self.rng, self.delay = random.Random(seed), delay
        self.fired = Counter()  # fault: how often
        self.mistakes = []  # exceptions of the server's own
        self.loop = asyncio.new_event_loop()
        self.port = None

    # From the test's thread.

    def __enter__(self):
        started = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(started,), daemon=True)
        self.thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, failed, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        assert failed or not self.mistakes, self.mistakes

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def heal(self):
        self.choose = no_fault

    # On the server's thread.

    def run(self, started):
        asyncio.set_event_loop(self.loop)

        async def listen():
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=2**20)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            return server

        server = self.loop.run_until_complete(listen())
        self.loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()

    async def serve(self, reader, writer):
        try:
            while await self.one_request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side has gone, or this one ends
        except Exception as mistake:
            self.mistakes.append(mistake)
        finally:
            writer.close()

    async def one_request(self, reader, writer):
        """Whether the connection goes on."""
        raise NotImplementedError


def no_fault(*_):
    return None


async def read_head(reader):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    head = head[:-4]
    first, headers = parse_head(head)
    method, path, _ = first.split(" ", 2)
    return Request(method, path, head, headers)


def parse_head(head):
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def read_body(reader, headers):
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    if headers.get("transfer-encoding", "").lower() == "chunked":
        raw = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            raw += line + await reader.readexactly(size + 2)
            if size == 0:
                return raw  # as it came, framing and all: it is only passed on
    return b""


def reset(writer):
    """Closes with RST instead of FIN."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
