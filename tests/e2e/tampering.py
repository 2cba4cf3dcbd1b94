"""Ways to tamper with a bucket that holds a chain of digests and its log files, by someone who may write to it.

`forger` has a key of his own; `insider` has the very key that signs, which no signature can tell: what he does is found by
what follows from one file to the next.
"""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta

import rsa

import digests
from digests import FIELDS, signed


class Scene:
    """A copy of a bucket in a store of its own, under the bucket's name: digests say where they belong. `source` is the account and
    region of the chain that is tampered with."""

    def __init__(self, s3, bucket, objects, source, insider, forger):
        self.s3, self.bucket, self.objects, self.insider, self.forger = s3, bucket, objects, insider, forger
        found = digests.parse(bucket, objects)
        self.chain = found.of(source)
        [other] = set(found.sources()) - {source}
        self.other_chain = found.of(other)
        full = [index for index, digest in enumerate(self.chain) if digest.value["logFiles"]]
        #: A digest with log files and neighbours, and a later one with log files.
        self.middle = next(index for index in full if 0 < index < len(self.chain) - 1)
        self.later = next(index for index in full if index > self.middle)
        self.log, self.other_log = (self.chain[index].value["logFiles"][0]["s3Object"] for index in (self.middle, self.later))

    def restore(self):
        listed = self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        for item in listed:
            self.s3.delete_object(Bucket=self.bucket, Key=item["Key"])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.restore_one, self.objects))

    def restore_one(self, key):
        body, metadata = self.objects[key]
        self.put(key, body, metadata)

    def put(self, key, body, metadata):
        headers = {"ContentType": "application/json", "ContentEncoding": "gzip"}
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=metadata, **headers)

    def delete(self, *keys):
        for key in keys:
            self.s3.delete_object(Bucket=self.bucket, Key=key)

    def truncate(self, key):
        body, metadata = self.objects[key]
        self.put(key, body[: len(body) // 2], metadata)

    def swap(self, one, other):
        self.put(one, *self.objects[other])
        self.put(other, *self.objects[one])

    def move(self, key, to):
        self.put(to, *self.objects[key])
        self.delete(key)

    def sign(self, index, key, **changes):
        """Puts a digest with changes, signed anew."""
        digest = self.chain[index]
        self.put(digest.key, *signed(digest.value | changes, key))

    def without_signature(self, index, **changes):
        """Puts a digest with changes under the old signature."""
        digest = self.chain[index]
        body = json.dumps(digest.value | changes, separators=(",", ":")).encode()
        self.put(digest.key, gzip.compress(body), digest.metadata)


@dataclass
class Tampering:
    name: str
    do: object  # of a Scene
    cli: str | None  # what the AWS CLI complains of; None: nothing, and it ends well
    verify: str  # what `traild verify` complains of


def edit_log(scene):
    body, metadata = scene.objects[scene.log]
    text = gzip.decompress(body)
    edited = text.replace(b'"eventTime":"2', b'"eventTime":"3', 1)
    assert edited != text
    scene.put(scene.log, gzip.compress(edited), metadata)


def shifted(key, seconds):
    """A digest's key of another moment."""
    stamp = key[-24:-8]
    time = digests.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ") + timedelta(seconds=seconds)
    return key.replace(stamp, time.strftime("%Y%m%dT%H%M%SZ"))


def renamed(key):
    unique = key[-24:-8]
    return key.replace(unique, unique[::-1])


def drop_log(value):
    return {"logFiles": [], "newestEventTime": None, "oldestEventTime": None} | {"logFiles": value["logFiles"][1:]}


def shift_event_times(scene):
    files = deepcopy(scene.chain[scene.middle].value["logFiles"])
    for file in files:
        file["oldestEventTime"] = file["newestEventTime"] = "2001-01-01T00:00:00Z"
    times = {"oldestEventTime": "2001-01-01T00:00:00Z", "newestEventTime": "2001-01-01T00:00:00Z"}
    scene.sign(scene.middle, scene.insider, logFiles=files, **times)


def name_a_log_twice(scene):
    earlier, later = scene.chain[scene.middle].value, scene.chain[scene.later].value
    files = later["logFiles"] + earlier["logFiles"][:1]
    oldest = min(file["oldestEventTime"] for file in files)
    newest = max(file["newestEventTime"] for file in files)
    scene.sign(scene.later, scene.insider, logFiles=files, oldestEventTime=oldest, newestEventTime=newest)


def cut_out(scene):
    """Takes a digest away, and links the two beside it: the whole chain after it is signed anew."""
    gone = scene.middle
    before = scene.chain[gone - 1]
    scene.delete(scene.chain[gone].key)
    links = [before.bucket, before.key, before.sha256, "SHA-256", before.metadata["signature"]]
    for digest in scene.chain[gone + 1 :]:
        value = digest.value | dict(zip(FIELDS[9:14], links))
        body, metadata = signed(value, scene.insider)
        scene.put(digest.key, body, metadata)
        links = [digest.bucket, digest.key, digests.sha256(gzip.decompress(body)), "SHA-256", metadata["signature"]]
    scene.delete(*(file["s3Object"] for file in scene.chain[gone].value["logFiles"]))


def fingerprint(key):
    return digests.md5(rsa.PublicKey(key.n, key.e).save_pkcs1("DER"))


TABLE = [
    # Log files.
    Tampering("log file edited", edit_log, "hash value doesn't match", "hash value doesn't match"),
    Tampering("log file deleted", lambda s: s.delete(s.log), "not found", "not found"),
    Tampering("log file moved", lambda s: s.move(s.log, renamed(s.log)), "not found", "not found"),
    Tampering("log files swapped", lambda s: s.swap(s.log, s.other_log), "hash value doesn't match", "hash value doesn't match"),
    Tampering("log file truncated", lambda s: s.truncate(s.log), "hash value doesn't match", "invalid format"),
    Tampering("log file overwritten", lambda s: s.put(s.log, b"not gzip", {}), "invalid format", "invalid format"),
    Tampering("log file that traild never wrote", lambda s: s.put(renamed(s.log), *s.objects[s.log]), None, "is in no digest file"),
    # Digests, by someone without the key.
    Tampering(
        "digest edited",
        lambda s: s.without_signature(s.middle, **drop_log(s.chain[s.middle].value)),
        "signature verification failed",
        "signature verification failed",
    ),
    Tampering("digest deleted", lambda s: s.delete(s.chain[s.middle].key), "not found", "not found"),
    Tampering(
        "newest digest moved",
        lambda s: s.move(s.chain[-1].key, shifted(s.chain[-1].key, 1)),
        "has been moved from its original location",
        "has been moved from its original location",
    ),
    Tampering(
        "digests swapped",
        lambda s: s.swap(s.chain[s.middle].key, s.chain[s.middle + 1].key),
        "has been moved from its original location",
        "has been moved from its original location",
    ),
    Tampering("digest truncated", lambda s: s.truncate(s.chain[s.middle].key), "invalid format", "invalid format"),
    Tampering(
        "digest edited and signed with another key",
        lambda s: s.sign(s.middle, s.forger, **drop_log(s.chain[s.middle].value)),
        "signature verification failed",
        "signature verification failed",
    ),
    Tampering(
        "digest edited, signed with another key, and naming it",
        lambda s: s.sign(s.middle, s.forger, digestPublicKeyFingerprint=fingerprint(s.forger)),
        "public key not found",
        "public key not found",
    ),
    Tampering(
        "signature removed",
        lambda s: s.put(s.chain[s.middle].key, s.objects[s.chain[s.middle].key][0], {}),
        "signature verification failed",
        "signature verification failed",
    ),
    Tampering("newest digest deleted, an hour later", lambda s: s.delete(s.chain[-1].key), None, "the newest digest file ends at"),
    Tampering("newest three digests deleted", lambda s: s.delete(*(d.key for d in s.chain[-3:])), None, "the newest digest file ends at"),
    Tampering("oldest digests deleted", lambda s: s.delete(*(d.key for d in s.chain[: s.middle])), "not found", "not found"),
    Tampering("all digests of another region deleted", lambda s: s.delete(*(d.key for d in s.other_chain)), None, "log files, and no digest file"),
    Tampering("all digests deleted", lambda s: s.delete(*(d.key for d in s.chain + s.other_chain)), None, "No digests found"),
    # By someone who has the key.
    Tampering(
        "hash of the previous digest changed, signed with the right key",
        lambda s: s.sign(s.middle, s.insider, previousDigestHashValue="0" * 64),
        None,
        "hash value of the previous digest file doesn't match",
    ),
    Tampering(
        "signature of the previous digest changed, signed with the right key",
        lambda s: s.sign(s.middle, s.insider, previousDigestSignature="0" * 512),
        None,
        "signature of the previous digest file doesn't match",
    ),
    Tampering("digest cut out with its log files, all later ones signed anew", cut_out, None, "no digest file covers the time"),
    Tampering("event times changed, signed with the right key", shift_event_times, None, "holds events of other times"),
    Tampering("log file named by two digests, signed with the right key", name_a_log_twice, None, "is also in digest file"),
]
