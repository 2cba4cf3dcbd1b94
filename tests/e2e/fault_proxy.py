"""A proxy on the wire between traild and S3 that breaks chosen requests, counts what it broke, and watches the PUTs.

Requests are passed on as they came (so signatures hold), each over a connection of its own. What may happen to one:

    500, 503, 403, 404   answered with that S3 error; upstream never hears of it
    reset                the connection is reset in the middle of the request's body
    lost                 upstream does the request, and the connection is reset instead of its answer
    silent               never answered; the connection is held until the client or the proxy gives up
    slow                 done after a delay

Every PUT of an object is noted with the hash of its body, whether it came through or not: one key must always be
written with the same bytes (I4).
"""

import asyncio
import hashlib
import random
import socket
import struct
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass

ERRORS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "403": (403, "AccessDenied", "Access Denied"),
    "404": (404, "NoSuchBucket", "The specified bucket does not exist"),
}
KINDS = (*ERRORS, "reset", "lost", "silent", "slow")


@dataclass
class Request:
    method: str
    path: str
    head: bytes
    headers: dict
    body: bytes = b""

    @property
    def bucket(self):
        return self.path.lstrip("/").split("/")[0].split("?")[0]

    @property
    def is_object_put(self):
        return self.method == "PUT" and "/" in self.path.lstrip("/").split("?")[0].rstrip("/")


class FaultProxy:
    """`choose(request, rng)` names the fault of a request, or None; it may be replaced while the proxy runs."""

    def __init__(self, upstream_port, seed=0, choose=None, delay=1.0):
        self.upstream_port, self.delay = upstream_port, delay
        self.rng = random.Random(seed)
        self.choose = choose or (lambda request, rng: None)
        self.fired = Counter()
        self.passed = 0
        self.put_hashes = defaultdict(set)  # key: hashes of the bodies sent for it
        self.put_headers = {}  # key: headers of the last PUT
        self.loop = asyncio.new_event_loop()
        self.port = None

    # From the test's thread.

    def __enter__(self):
        started = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(started,), daemon=True)
        self.thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def heal(self):
        self.choose = lambda request, rng: None

    def check_redone_bytes(self):
        """I4: whatever was redone was redone with the same bytes. Returns how many keys were seen."""
        changed = {key: hashes for key, hashes in self.put_hashes.items() if len(hashes) > 1}
        assert not changed, f"{len(changed)} keys were written with different bytes, for example {next(iter(changed))}"
        return len(self.put_hashes)

    # On the proxy's thread.

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
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def one_request(self, reader, writer):
        """Whether the connection goes on."""
        request = await read_head(reader)
        if request is None:
            return False
        fault = self.choose(request, self.rng)
        length = int(request.headers.get("content-length", 0))
        if request.headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault == "reset":
            await reader.readexactly(length // 2)
            self.fired[fault] += 1
            return reset(writer)
        request.body = await read_body(reader, request.headers)
        if request.is_object_put:
            self.note(request)
        if fault in ERRORS:
            self.fired[fault] += 1
            writer.write(error_answer(*ERRORS[fault]))
            await writer.drain()
            return True
        if fault == "silent":
            self.fired[fault] += 1
            await reader.read(1)  # returns when the client hangs up
            return False
        if fault == "slow":
            self.fired[fault] += 1
            await asyncio.sleep(self.delay)
        answer = await self.ask_upstream(request)
        if fault == "lost":
            self.fired[fault] += 1
            return reset(writer)
        self.passed += 1
        writer.write(answer)
        await writer.drain()
        return True

    def note(self, request):
        key = request.path.split("?")[0]
        self.put_hashes[key].add(hashlib.sha256(request.body).hexdigest())
        self.put_headers[key] = request.headers

    async def ask_upstream(self, request):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream_port, limit=2**20)
        try:
            lines = [line for line in request.head.split(b"\r\n") if not line.lower().startswith((b"expect:", b"connection:"))]
            writer.write(b"\r\n".join([lines[0], b"Connection: close", *lines[1:]]) + b"\r\n\r\n" + request.body)
            await writer.drain()
            return await read_answer(reader, request.method)
        finally:
            writer.close()


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


async def read_answer(reader, method):
    """The whole answer as bytes, with a length, so that the client's connection can be kept."""
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
    first, headers = parse_head(head)
    status = int(first.split(" ")[1])
    if status == 100:
        return await read_answer(reader, method)
    if method == "HEAD" or status in (204, 304):
        body = b""
    elif "content-length" in headers or "transfer-encoding" in headers:
        body = await read_body(reader, headers)
    else:
        body = await reader.read()
        head += f"\r\ncontent-length: {len(body)}".encode()
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"keep-alive:"))]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def error_answer(status, code, message):
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return (
        f"HTTP/1.1 {status} {code}\r\ncontent-type: application/xml\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    )


def reset(writer):
    """Closes with RST instead of FIN."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
