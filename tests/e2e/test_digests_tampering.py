"""Whoever changes a bucket is found out: what the AWS CLI says of each way to do it, what `traild verify` says, and our own reading.

All judge copies of a chain that a real daemon made, hours of it by a clock that is set. The CLI looks backwards from the newest digest
it finds, and at links alone, so it cannot see all; the others have to. The table is printed for the README.
"""

import zlib
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest
import rsa

import digests
import events
from harness import BUCKET, wait_until
from tampering import TABLE, Scene
from digests import HOME, OWN_TRAIL, all_digested, digesting
from judges import validate_logs, verify

HOURS = 6
ELSEWHERE = (events.HOME_ACCOUNT, "eu-west-1")
STORES = 3  # copies judged at once


@pytest.fixture
def chain(make_daemon, wall_clock, rng):
    """A daemon that has written digests for hours, all but the last two of them with log files, and those of another region beside them."""
    daemon = make_daemon("origin", config=digesting(OWN_TRAIL, "1h"), env=wall_clock.env).start()
    for hour in range(HOURS):
        if hour < HOURS - 2:
            daemon.send(events.make_many(rng, 3) + events.make_many(rng, 2, region=ELSEWHERE[1]))
            daemon.drain()
        wall_clock.jump(hours=1)
        wanted = hour + 2  # the starting digest was before them
        wait_until(lambda: len(digests.read(daemon.s3()).of(HOME)) >= wanted, 15, f"digest {wanted}")
    all_digested(daemon.s3(), daemon)
    found = digests.read(daemon.s3())
    assert found.sources() == sorted([HOME, ELSEWHERE])
    last = found.of(HOME)[-1].end
    wait_until(lambda: digests.read(daemon.s3()).of(ELSEWHERE)[-1].end >= last, 15, "the other region's newest digest")
    return daemon


def test_each_way_to_tamper_is_found(chain, make_daemon, wall_clock, report):
    insider = digests.private_key(next(chain.data_dir.glob(f"keys/{events.HOME_REGION}.*.private.der")))
    forger = rsa.newkeys(2048)[1]
    objects = digests.read_objects(chain.s3())
    scenes = Queue()
    for number in range(STORES):
        store = make_daemon(f"copy-{number}", config={"trails": []}).start()
        scenes.put((store, Scene(store.s3(), BUCKET, objects, HOME, insider, forger)))
    store, scene = scenes.queue[0]
    scene.restore()
    since, until = scene.chain[0].start, scene.chain[-1].end
    keys = digests.public_keys(chain.api_endpoint, since, until)
    # Digests may be late: one is missed by its absence only when its time is over for as long again.
    wall_clock.jump(minutes=70)

    def judge(store, scene):
        cli = validate_logs(chain.api_endpoint, store.store_endpoint, digests.arn(), events.HOME_REGION, since, until)
        return cli, verify(chain, store.store_endpoint, env=wall_clock.env), own_judgement(scene.s3, keys, until)

    def tamper(tampering):
        store, scene = scenes.get()
        try:
            scene.restore()
            tampering.do(scene)
            return judge(store, scene)
        finally:
            scenes.put((store, scene))

    untouched = judge(store, scene)
    assert (untouched[0].code, untouched[1].code, untouched[2]) == (0, 0, None), "\n".join(map(str, untouched))
    with ThreadPoolExecutor(STORES) as pool:
        verdicts = list(pool.map(tamper, TABLE))
    report(table(verdicts))
    unexpected = [each for tampering, verdicts in zip(TABLE, verdicts) for each in surprises(tampering, *verdicts)]
    assert not unexpected, "\n\n".join(unexpected)


def own_judgement(s3, keys, until):
    """What the tests of healthy chains would fail with."""
    try:
        found = digests.read(s3)
        digests.check(found, keys)
        assert found.of(HOME)[-1].end == until, "the newest digest is not there"
    except (AssertionError, KeyError, zlib.error, rsa.VerificationError) as error:
        return error
    return None


def surprises(tampering, cli, ours, own):
    complaints = cli.complaints()
    if tampering.cli is None:
        said = cli.code == 0 and not complaints
    else:
        said = cli.code == 1 and any(tampering.cli in complaint for complaint in complaints)
    if not said:
        yield f"{tampering.name}: the CLI was to say {tampering.cli}\n{cli}"
    if ours.code != 1 or tampering.verify not in ours.out + ours.err:
        yield f"{tampering.name}: traild was to say {tampering.verify}\n{ours}"
    if own is None:
        yield f"{tampering.name}: our own reading has not noticed it"


def table(verdicts):
    rows = ["| tampering | `aws cloudtrail validate-logs` | `traild verify` |", "|---|---|---|"]
    for tampering, (cli, ours, _) in zip(TABLE, verdicts):
        said = tampering.cli or ("`No digests found`" if "No digests found" in cli.out else "nothing")
        rows.append(f"| {tampering.name} | {said}, exit {cli.code} | {tampering.verify}, exit {ours.code} |")
    return "\n".join(rows)
