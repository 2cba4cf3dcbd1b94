"""SNS, CloudWatch Logs, EventBridge and STS on loopback, as far as trails use them, with AWS's rules and faults of our choosing.

It answers what AWS would: a missing topic, log group, stream or role is an error, PutEvents to a missing bus is a success that drops
what was sent, and a request over a limit is refused. What a careful client would never send (over a limit, out of order, unsigned,
signed for another region) is also a violation, which `check()` tells.

`choose(call, rng)` names the fault of a call, or None:

    throttled, internal, unavailable, denied, expired   answered with that error; nothing is done
    reset      the connection is reset instead of an answer; nothing is done
    lost       done, and the connection is reset instead of its answer
    silent     never answered, nothing done; the connection is held until the client or the fake gives up
    slow       done after a delay
    partial    PutEvents: some of the entries fail, by throttling or inside
    too_new    PutLogEvents: the last event is rejected; too_old, expired_events: the first

An event or message that contains one of the strings of `poison` is refused for good, as AWS refuses a malformed one: an entry of
PutEvents alone, PutLogEvents and Publish as a whole.

Whatever arrived is kept, with when and by whom. `sent_again` are those that had been answered with success before: none, unless
the client has lost its memory.
"""

import asyncio
import json
import time
import urllib.parse
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from wire import Server, read_body, read_head, reset

REGION = "us-east-1"
ACCOUNT = "111122223333"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:trail"
GROUP = "trail"
GROUP_ARN = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{GROUP}:*"
BUS = "audit"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/traild-to-logs"
#: What CloudTrail says first to a topic.
VALIDATION = "CloudTrail validation message."

KIB, MIB = 1024, 1024 * 1024
MAX_MESSAGE_BYTES = 256 * KIB
MAX_LOG_BATCH_BYTES = MIB
MAX_LOG_EVENTS = 10_000
LOG_EVENT_OVERHEAD = 26
MAX_PUT_EVENTS_ENTRIES = 10
TIME_BYTES = 14
HOUR_MS = 3_600_000

JSON_ERRORS = {
    "throttled": (400, "ThrottlingException", "Rate exceeded"),
    "internal": (500, "InternalFailure", "An internal failure occurred."),
    "unavailable": (503, "ServiceUnavailableException", "The service is unavailable."),
    "denied": (400, "AccessDeniedException", "User is not authorized to perform this operation"),
    "expired": (400, "ExpiredTokenException", "The security token included in the request is expired"),
}
QUERY_ERRORS = {
    "throttled": (400, "Throttling", "Rate exceeded"),
    "internal": (500, "InternalFailure", "An internal failure occurred."),
    "unavailable": (503, "ServiceUnavailable", "The service is unavailable."),
    "denied": (403, "AuthorizationError", "User is not authorized to perform: SNS:Publish"),
    "expired": (403, "ExpiredToken", "The security token included in the request is expired"),
}
ERRORS = tuple(JSON_ERRORS)
#: Faults that any call may have.
KINDS = (*ERRORS, "reset", "lost", "silent", "slow")
LOG_REJECTIONS = {
    "too_new": lambda count: {"tooNewLogEventStartIndex": count - 1},
    "too_old": lambda count: {"tooOldLogEventEndIndex": 1},
    "expired_events": lambda count: {"expiredLogEventEndIndex": 1},
}

TARGETS = {"Logs_20140328": "logs", "AWSEvents": "events"}


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status, code, message):
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message


def missing(message, status=400):
    return Refused(status, "ResourceNotFoundException", message)


@dataclass
class Key:
    """An access key: whose it is, and the token that comes with it when it is temporary."""

    owner: str
    token: str | None = None
    expired: bool = False


@dataclass
class Call:
    service: str
    operation: str
    parameters: dict
    region: str
    access_key: str

    @property
    def target(self):
        """The topic's ARN, the log group's name, the bus as named, the role's ARN."""
        given = self.parameters
        entries = given.get("Entries") or [{}]
        names = ("TopicArn", "logGroupName", "Name", "RoleArn")
        return next((given[name] for name in names if name in given), entries[0].get("EventBusName", "default"))


@dataclass
class Delivery:
    """Something that arrived: a message, a log event, an entry of PutEvents."""

    text: str
    at: float  # time.monotonic()
    by: str  # owner of the key that signed
    parameters: dict = field(default_factory=dict)

    @property
    def value(self):
        return json.loads(self.text)


class FakeAws(Server):
    def __init__(self, *, put_events_max_bytes=256 * KIB, delay=0.5, **options):
        super().__init__(delay=delay, **options)
        self.put_events_max_bytes = put_events_max_bytes
        self.keys = {"test": Key("test")}
        self.topics, self.groups, self.buses, self.roles = {TOPIC}, {(REGION, GROUP)}, {(REGION, BUS)}, set()
        self.streams = set()  # (region, group, stream)
        self.poison = set()

        self.messages = defaultdict(list)  # topic ARN: deliveries
        self.log_events = defaultdict(list)  # (group, stream): deliveries
        self.rejected_log_events = defaultdict(list)  # fault: texts
        self.entries = defaultdict(list)  # name of the bus: deliveries
        self.dropped = []  # texts sent to a bus that does not exist
        self.calls = Counter()  # (operation, target): how often
        self.fired_by_service = Counter()  # (service, fault)
        self.violations = []
        self.acknowledged = set()  # (service, target, text), answered with success
        self.sent_again = []

    # From the test's thread.

    def check(self):
        """The client has kept all of AWS's rules."""
        assert not self.violations, f"{len(self.violations)} violations, for example {self.violations[:3]}"

    def check_nothing_sent_again(self):
        assert not self.sent_again, f"{len(self.sent_again)} were sent again, for example {self.sent_again[:2]}"

    def expire(self, owner):
        """The keys that somebody has now are of no use any more."""
        for key in self.keys.values():
            key.expired |= key.owner == owner

    def notifications(self, topic=TOPIC):
        """Bucket and key of each object that a message to the topic names."""
        said = [message.value for message in list(self.messages[topic]) if message.text != VALIDATION]
        assert all(list(value) == ["s3Bucket", "s3ObjectKey"] for value in said), said[:3]
        return [(value["s3Bucket"], key) for value in said for key in value["s3ObjectKey"]]

    def logged(self, group=GROUP):
        """The texts of all events in the group's streams."""
        found = [(name, deliveries) for (of, name), deliveries in list(self.log_events.items()) if of == group]
        return [delivery.text for _, deliveries in found for delivery in list(deliveries)]

    def on_bus(self, bus=BUS):
        """The details of all entries."""
        return [delivery.text for delivery in list(self.entries[bus])]

    # On the server's thread.

    async def one_request(self, reader, writer):
        request = await read_head(reader)
        if request is None:
            return False
        if request.headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.body = await read_body(reader, request.headers)
        protocol = JSON if "x-amz-target" in request.headers else QUERY
        try:
            call = self.understand(request)
        except Refused as refusal:
            self.violations.append(str(refusal))
            return await answer(writer, refusal.status, protocol.error(refusal))
        self.calls[call.operation, call.target] += 1
        fault = self.choose(call, self.rng)
        if fault:
            self.fired[fault] += 1
            self.fired_by_service[call.service, fault] += 1
        if fault == "silent":
            await reader.read(1)  # returns when the client hangs up
            return False
        if fault == "slow":
            await asyncio.sleep(self.delay)
        if fault == "reset":
            return reset(writer)
        try:
            if fault in ERRORS or self.keys[call.access_key].expired:
                raise Refused(*protocol.errors[fault if fault in ERRORS else "expired"])
            result, done = self.do(call, fault)
        except Refused as refusal:
            return await answer(writer, refusal.status, protocol.error(refusal))
        if fault == "lost":
            return reset(writer)
        self.acknowledged.update(done)
        return await answer(writer, 200, protocol.result(call, result))

    def understand(self, request):
        """What is asked, by whom. A request that AWS's own SDKs would not make is refused."""
        scope = request.headers.get("authorization", "")
        if not scope.startswith("AWS4-HMAC-SHA256 Credential="):
            raise Refused(403, "MissingAuthenticationTokenException", f"not signed: {scope!r}")
        access_key, date, region, service, end = scope.split("=", 1)[1].split(",")[0].split("/")
        if end != "aws4_request" or "x-amz-date" not in request.headers or not request.headers["x-amz-date"].startswith(date):
            raise Refused(403, "IncompleteSignatureException", f"not a scope: {scope}")
        if "x-amz-target" in request.headers:
            prefix, _, operation = request.headers["x-amz-target"].partition(".")
            asked, parameters = TARGETS.get(prefix), json.loads(request.body)
        else:
            parameters = dict(urllib.parse.parse_qsl(request.body.decode(), keep_blank_values=True))
            operation = parameters.pop("Action", None)
            asked = {"Publish": "sns", "AssumeRole": "sts"}.get(operation)
        if asked is None or asked != service:
            raise Refused(403, "SignatureDoesNotMatch", f"{operation} is signed for {service}")
        self.check_key(access_key, request.headers.get("x-amz-security-token"))
        return Call(service, operation, parameters, region, access_key)

    def check_key(self, access_key, token):
        key = self.keys.get(access_key)
        if key is None:
            raise Refused(403, "UnrecognizedClientException", f"no such access key: {access_key}")
        if key.token != token:
            raise Refused(403, "InvalidClientTokenId", f"not the token of {access_key}")

    def do(self, call, fault):
        """The result, and what has thereby arrived, by the names that tell it from others."""
        operation = {
            "Publish": self.publish,
            "PutLogEvents": self.put_log_events,
            "CreateLogStream": self.create_log_stream,
            "PutEvents": self.put_events,
            "DescribeEventBus": self.describe_event_bus,
            "AssumeRole": self.assume_role,
        }.get(call.operation)
        if operation is None:
            raise self.violation(call, 400, "UnknownOperationException", "is not known here")
        return operation(call, fault)

    def violation(self, call, status, code, message):
        self.violations.append(f"{call.operation} {call.target}: {message}")
        return Refused(status, code, message)

    def arrived(self, call, target, text):
        """Notes that something arrives, and gives the name it is known by."""
        name = (call.service, target, text)
        if name in self.acknowledged:
            self.sent_again.append(name)
        return name

    def is_poison(self, text):
        return any(poison in text for poison in self.poison)

    def owner(self, call):
        return self.keys[call.access_key].owner

    # SNS.

    def publish(self, call, _fault):
        topic, message = call.parameters.get("TopicArn", ""), call.parameters.get("Message", "")
        self.check_region(call, topic)
        if topic.endswith(".fifo"):
            raise self.violation(call, 400, "InvalidParameter", "The MessageGroupId parameter is required for FIFO topics")
        if not message:
            raise self.violation(call, 400, "InvalidParameter", "Empty message")
        if len(message.encode()) > MAX_MESSAGE_BYTES:
            raise self.violation(call, 400, "InvalidParameter", "Message too long")
        if topic not in self.topics:
            raise Refused(404, "NotFound", "Topic does not exist")
        if self.is_poison(message):
            raise Refused(400, "InvalidParameter", "Invalid parameter: Message")
        self.messages[topic].append(Delivery(message, time.monotonic(), self.owner(call), call.parameters))
        return {"MessageId": str(uuid.uuid4())}, [self.arrived(call, topic, message)]

    def check_region(self, call, arn):
        parts = arn.split(":")
        if len(parts) < 6 or parts[2] != call.service:
            raise self.violation(call, 400, "InvalidParameter", f"not an ARN of {call.service}: {arn}")
        if parts[3] != call.region:
            raise self.violation(call, 400, "InvalidParameter", f"{arn} is asked for in {call.region}")

    # CloudWatch Logs.

    def create_log_stream(self, call, _fault):
        group, stream = call.parameters["logGroupName"], call.parameters["logStreamName"]
        if not 1 <= len(stream) <= 512 or ":" in stream or "*" in stream:
            raise self.violation(call, 400, "InvalidParameterException", f"not a name of a log stream: {stream}")
        if (call.region, group) not in self.groups:
            raise missing("The specified log group does not exist.")
        if (call.region, group, stream) in self.streams:
            raise Refused(400, "ResourceAlreadyExistsException", "The specified log stream already exists")
        self.streams.add((call.region, group, stream))
        return {}, []

    def put_log_events(self, call, fault):
        group, stream = call.parameters["logGroupName"], call.parameters["logStreamName"]
        events = call.parameters["logEvents"]
        self.check_log_batch(call, events)
        if (call.region, group) not in self.groups:
            raise missing("The specified log group does not exist.")
        if (call.region, group, stream) not in self.streams:
            raise missing("The specified log stream does not exist.")
        if any(self.is_poison(event["message"]) for event in events):
            raise Refused(400, "InvalidParameterException", "1 validation error detected: a log event is not valid")
        rejected = self.rejected_ranges(events)
        if fault in LOG_REJECTIONS:
            rejected |= LOG_REJECTIONS[fault](len(events))
        first = max(rejected.get("tooOldLogEventEndIndex", 0), rejected.get("expiredLogEventEndIndex", 0))
        end = rejected.get("tooNewLogEventStartIndex", len(events))
        taken = events[first:end]
        if fault in LOG_REJECTIONS:
            self.rejected_log_events[fault] += [event["message"] for event in events if event not in taken]
        elif rejected:
            self.violations.append(f"PutLogEvents {group}: log events too old or too new: {rejected}")
        now, by = time.monotonic(), self.owner(call)
        for event in taken:
            self.log_events[group, stream].append(Delivery(event["message"], now, by, {"timestamp": event["timestamp"]}))
        done = [self.arrived(call, group, event["message"]) for event in taken]
        answer = {"nextSequenceToken": "1"} | ({"rejectedLogEventsInfo": rejected} if rejected else {})
        return answer, done

    def check_log_batch(self, call, events):
        def refuse(message):
            raise self.violation(call, 400, "InvalidParameterException", message)

        if not 1 <= len(events) <= MAX_LOG_EVENTS:
            refuse(f"1 to 10000 log events, not {len(events)}")
        sizes = [len(event["message"].encode()) + LOG_EVENT_OVERHEAD for event in events]
        if min(sizes) == LOG_EVENT_OVERHEAD:
            refuse("an empty log event")
        if sum(sizes) > MAX_LOG_BATCH_BYTES:
            refuse(f"Upload too large: {sum(sizes)} bytes exceeds limit of {MAX_LOG_BATCH_BYTES}")
        times = [event["timestamp"] for event in events]
        if times != sorted(times):
            refuse("Log events in a single PutLogEvents request must be in chronological order.")
        if times[-1] - times[0] > 24 * HOUR_MS:
            refuse("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")

    @staticmethod
    def rejected_ranges(events):
        now = time.time() * 1000
        old = sum(event["timestamp"] < now - 14 * 24 * HOUR_MS for event in events)
        new = sum(event["timestamp"] > now + 2 * HOUR_MS for event in events)
        ranges = {}
        if old:
            ranges["tooOldLogEventEndIndex"] = old
        if new:
            ranges["tooNewLogEventStartIndex"] = len(events) - new
        return ranges

    # EventBridge.

    def bus_of(self, call, given):
        """Region and name of a bus, by name or ARN."""
        if not given.startswith("arn:"):
            return call.region, given
        self.check_region(call, given)
        return call.region, given.split(":", 5)[5].removeprefix("event-bus/")

    def describe_event_bus(self, call, _fault):
        region, name = self.bus_of(call, call.parameters.get("Name", "default"))
        if (region, name) not in self.buses:
            raise missing(f"Event bus {name} does not exist.")
        return {"Name": name, "Arn": f"arn:aws:events:{region}:{ACCOUNT}:event-bus/{name}"}, []

    def put_events(self, call, fault):
        entries = call.parameters["Entries"]
        if not 1 <= len(entries) <= MAX_PUT_EVENTS_ENTRIES:
            raise self.violation(call, 400, "ValidationException", f"1 to 10 entries, not {len(entries)}")
        if sum(map(entry_bytes, entries)) >= self.put_events_max_bytes:
            raise self.violation(call, 400, "ValidationException", "Total size of the entries in the request is over the limit.")
        failing = self.rng.sample(range(len(entries)), self.rng.randint(1, len(entries))) if fault == "partial" else ()
        results, done = [], []
        for index, entry in enumerate(entries):
            error = self.refusal_of_entry(call, entry)
            if error is None and index in failing:
                error = self.rng.choice([("ThrottlingException", "Rate exceeded"), ("InternalFailure", "Please try again")])
            if error:
                results.append({"ErrorCode": error[0], "ErrorMessage": error[1]})
                continue
            results.append({"EventId": str(uuid.uuid4())})
            region, name = self.bus_of(call, entry.get("EventBusName", "default"))
            if (region, name) in self.buses:
                self.entries[name].append(Delivery(entry["Detail"], time.monotonic(), self.owner(call), entry))
                done.append(self.arrived(call, name, entry["Detail"]))
            else:
                self.dropped.append(entry["Detail"])
        failed = sum("ErrorCode" in result for result in results)
        return {"FailedEntryCount": failed, "Entries": results}, done

    def refusal_of_entry(self, call, entry):
        """Code and message of an entry that is not as AWS wants it."""
        source, kind = entry.get("Source", ""), entry.get("DetailType", "")
        if source.startswith("aws."):
            error = "NotAuthorizedForSourceException", "Not authorized for the source."
        elif not 1 <= len(source.encode()) <= 256:
            error = "InvalidArgument", "Parameter Source is not valid. Reason: 1 to 256 characters."
        elif not 1 <= len(kind.encode()) <= 128:
            error = "InvalidArgument", "Parameter DetailType is not valid. Reason: 1 to 128 characters."
        elif not is_object(entry.get("Detail", "")):
            error = "MalformedDetail", "Detail is malformed."
        else:
            return ("MalformedDetail", "Detail is malformed.") if self.is_poison(entry["Detail"]) else None
        self.violations.append(f"PutEvents {call.target}: {error} {source!r} {kind!r}")
        return error

    # STS.

    def assume_role(self, call, _fault):
        role, session = call.parameters["RoleArn"], call.parameters["RoleSessionName"]
        if role not in self.roles:
            raise Refused(403, "AccessDenied", f"User is not authorized to perform: sts:AssumeRole on resource: {role}")
        access_key, token = f"ASIA{uuid.uuid4().hex[:16].upper()}", uuid.uuid4().hex
        self.keys[access_key] = Key(role, token)
        expiration = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        credentials = {"AccessKeyId": access_key, "SecretAccessKey": "secret", "SessionToken": token, "Expiration": expiration}
        user = {"AssumedRoleId": f"AROA:{session}", "Arn": f"{role.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/')}/{session}"}
        return {"Credentials": credentials, "AssumedRoleUser": user}, []


def entry_bytes(entry):
    """Size of an entry of PutEvents by AWS's formula."""
    texts = [entry.get("Source", ""), entry.get("DetailType", ""), entry.get("Detail", ""), *entry.get("Resources", [])]
    return sum(len(text.encode()) for text in texts) + (TIME_BYTES if "Time" in entry else 0)


def is_object(text):
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@dataclass(frozen=True)
class Protocol:
    """How results and errors are written."""

    errors: dict
    result: Callable  # of a call and its result: content type and body
    error: Callable  # of a refusal


def query_result(call, result):
    def xml(value):
        return "".join(f"<{k}>{xml(v) if isinstance(v, dict) else escape(v)}</{k}>" for k, v in value.items())

    both = {f"{call.operation}Result": result, "ResponseMetadata": {"RequestId": str(uuid.uuid4())}}
    return "text/xml", f"<{call.operation}Response>{xml(both)}</{call.operation}Response>"


def query_error(refusal):
    kind = "Sender" if refusal.status < 500 else "Receiver"
    error = f"<Type>{kind}</Type><Code>{refusal.code}</Code><Message>{escape(refusal.message)}</Message>"
    return "text/xml", f"<ErrorResponse><Error>{error}</Error><RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"


def json_result(_call, result):
    return "application/x-amz-json-1.1", json.dumps(result)


def json_error(refusal):
    return "application/x-amz-json-1.1", json.dumps({"__type": refusal.code, "message": refusal.message})


JSON = Protocol(JSON_ERRORS, json_result, json_error)
QUERY = Protocol(QUERY_ERRORS, query_result, query_error)


async def answer(writer, status, content):
    content_type, text = content
    body = text.encode()
    head = f"HTTP/1.1 {status} x\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return True
