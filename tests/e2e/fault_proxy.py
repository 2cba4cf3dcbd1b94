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
from collections import defaultdict

from wire import Server, parse_head, read_body, read_head, reset

ERRORS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "403": (403, "AccessDenied", "Access Denied"),
    "404": (404, "NoSuchBucket", "The specified bucket does not exist"),
}
KINDS = (*ERRORS, "reset", "lost", "silent", "slow")


def bucket_of(request):
    return request.path.lstrip("/").split("/")[0].split("?")[0]


def is_object_put(request):
    return request.method == "PUT" and "/" in request.path.lstrip("/").split("?")[0].rstrip("/")


class FaultProxy(Server):
    """`choose(request, rng)` names the fault of a request, or None."""

    def __init__(self, upstream_port, **options):
        super().__init__(**options)
        self.upstream_port = upstream_port
        self.passed = 0
        self.put_hashes = defaultdict(set)  # key: hashes of the bodies sent for it
        self.put_headers = {}  # key: headers of the last PUT

    def check_redone_bytes(self):
        """I4: whatever was redone was redone with the same bytes. Returns how many keys were seen."""
        changed = {key: hashes for key, hashes in self.put_hashes.items() if len(hashes) > 1}
        assert not changed, f"{len(changed)} keys were written with different bytes, for example {next(iter(changed))}"
        return len(self.put_hashes)

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
        if is_object_put(request):
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
