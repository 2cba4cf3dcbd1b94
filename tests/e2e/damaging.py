"""Damages files as disks do, and tells from the bytes which frames of a log it has cost: see the format in src/wal/mod.rs."""

import base64
import json
import struct

PAGE = 4096
HEADER = 40
FRAMES_AT = PAGE + HEADER
FRAME_HEAD = 16
MAGIC = b"\xf4TF\xff"
#: Of an event's frame, before its JSON, if its region's name were empty: see src/event/record.rs.
EVENT_HEAD = 48


def flip_bits(data, rng):
    """One bit, or some that lie near each other."""
    at = rng.randrange(len(data))
    for _ in range(rng.choice([1, 1, 3, 8])):
        data[min(at + rng.randrange(64), len(data) - 1)] ^= 1 << rng.randrange(8)
    return f"bits flipped near {at}"


def truncate(data, rng):
    left = rng.choice([0, rng.randrange(len(data)), rng.randrange(len(data))])
    del data[left:]
    return f"cut to {left} bytes"


def zero_page(data, rng):
    at = rng.randrange(0, len(data), PAGE)
    end = min(at + PAGE, len(data))
    data[at:end] = bytes(end - at)
    return f"zeroed from {at} to {end}"


def damage(path, rng):
    """Changes the file in one of these ways, and says how."""
    before = path.read_bytes()
    how = rng.choice([flip_bits, truncate, zero_page])
    for how in (how, flip_bits):  # what was zero or nothing already is not damaged by being so
        data = bytearray(before)
        done = how(data, rng)
        if data != before:
            break
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(mode)
    return done


def frames(directory):
    """Position: payload, of every frame of an undamaged log."""
    return {at: payload for path in directory.glob("*.wal") for at, payload in frames_of(path)}


def frames_of(path):
    data, base, at = path.read_bytes(), int(path.stem), FRAMES_AT
    while at < len(data):
        assert data[at : at + 4] == MAGIC, f"{path}: no frame at {at}"
        (length,) = struct.unpack_from("<I", data, at + 4)
        yield base + at, data[at + FRAME_HEAD : at + FRAME_HEAD + length]
        at += FRAME_HEAD + length


def spoilt(before, after):
    """Positions of the frames of the log `before` that are not whole any more in its damaged copy `after`."""
    spoilt = set()
    for path in before.glob("*.wal"):
        old, new, base = path.read_bytes(), (after / path.name).read_bytes(), int(path.stem)
        headless = all(old[at : at + HEADER] != new[at : at + HEADER] for at in (0, PAGE))
        for position, payload in frames_of(path):
            start, end = position - base, position - base + FRAME_HEAD + len(payload)
            if headless or old[start:end] != new[start:end]:
                spoilt.add(position)
    return spoilt


def event_of(payload):
    """The JSON in a frame of the journal."""
    return payload[EVENT_HEAD + payload[3] :]


def entries_of(payload):
    """The entries in a frame of the ledger."""
    return [json.loads(line) for line in payload.splitlines()]


def positions_of(entry):
    """Where the events of a sealed batch stand in the journal: distances, in LEB128."""
    last, value, shift = 0, 0, 0
    for byte in base64.b64decode(entry["positions"]):
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            last += value
            yield last
            value, shift = 0, 0
