"""`[[inputs.file]]` reads each line of a growing file exactly once, over rotation, restart and kill -9."""

import time

import events
import logfiles
from harness import BUCKET, wait_until


def delivered(daemon):
    return sum(len(file.records) for file in logfiles.read(daemon.s3(), BUCKET))


def wait_for(daemon, count, seconds=45):
    wait_until(lambda: delivered(daemon) >= count, seconds, f"{count} events in objects")
    time.sleep(1.5)  # anything doubled would arrive now
    daemon.drain()


def test_each_line_is_delivered_exactly_once(make_daemon, tmp_path, rng):
    folder = tmp_path / "logs"
    folder.mkdir()
    live = folder / "audit.ndjson"
    daemon = make_daemon(config={"inputs": {"file": [{"path": str(folder / "audit*.ndjson")}]}})
    sent = []

    def write(count, pieces=1):
        for _ in range(count):
            event = events.make(rng)
            sent.append(event)
            line = event + b"\n"
            with open(live, "ab", buffering=0) as file:
                cuts = sorted(rng.randrange(len(line)) for _ in range(pieces - 1))
                for begin, end in zip([0, *cuts], [*cuts, len(line)]):
                    file.write(line[begin:end])

    write(20)
    daemon.start()
    write(20, pieces=3)
    wait_for(daemon, 40)

    # Rotation by renaming, as logrotate does; the old file still gets its last lines.
    with open(live, "ab", buffering=0) as old:
        live.rename(folder / "audit.ndjson.1")
        late = events.make(rng)
        sent.append(late)
        old.write(late + b"\n")
    write(20)
    wait_for(daemon, 61)

    # A clean restart, with lines written while nobody reads.
    daemon.stop()
    write(20)
    daemon.start()
    wait_for(daemon, 81)

    # Killed at any moment, while lines go on.
    for _ in range(6):
        write(15)
        time.sleep(rng.uniform(0, 0.6))
        daemon.kill()
        write(5)
        daemon.start()
    wait_for(daemon, 81 + 120)

    logfiles.check(logfiles.read(daemon.s3(), BUCKET), sent)


def test_a_bad_line_is_passed_over_and_counted(make_daemon, tmp_path, rng):
    path = tmp_path / "audit.ndjson"
    good = events.make_many(rng, 4)
    path.write_bytes(b"\n".join([good[0], b"not json", good[1], b"", b'{"eventName":"x"}', good[2], b"\xff\xfe", good[3]]) + b"\n")
    daemon = make_daemon(config={"inputs": {"file": [{"path": str(path)}]}}).start()
    wait_for(daemon, 4)
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), good)
    assert daemon.metrics().total("traild_events_rejected_total") == 3


def test_a_truncated_file_is_read_from_its_start(make_daemon, tmp_path, rng):
    path = tmp_path / "audit.ndjson"
    before, after = events.make_many(rng, 10), events.make_many(rng, 3)
    path.write_bytes(b"\n".join(before) + b"\n")
    daemon = make_daemon(config={"inputs": {"file": [{"path": str(path)}]}}).start()
    wait_for(daemon, 10)
    path.write_bytes(b"\n".join(after) + b"\n")
    wait_for(daemon, 13)
    logfiles.check(logfiles.read(daemon.s3(), BUCKET), before + after)
