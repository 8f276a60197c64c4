"""Judges what a proxy passed on: do other people's parsers all read the same requests in it, and is it strictly right?

Reads a JSON object a line from standard input: {"id", "mark", "connections": [hex, ...]}, where `mark` is "name:
value", a field that the proxy puts into every request it knows of. Writes one a line: {"id", "verdict", "why", "requests",
"refused_by"}. Verdicts:

  clean      every parser reads the same complete requests, strictly correct, each one marked
  ambiguous  two parsers read different requests, or one that the proxy doesn't know of
  refused    a strict parser (h11 or the grammar below) refuses it

`refused_by` names the other parsers that refuse it for a reason of their own (a policy on methods or names, say); that
alone is no fault. Never talks to a network and never repairs its input.
"""

import asyncio
import json
import re
import sys

import h11
import httptools
from aiohttp.http_parser import HttpRequestParserPy
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData
from gunicorn.http.parser import RequestParser
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

LIMIT = 1 << 24  # bytes; above everything in the corpus, so that no parser refuses for size
DONE, MORE, STOPPED, REFUSED = "done", "more", "stopped", "refused"


class Reading:
    """The complete requests that one parser saw on a connection, and how it ended."""

    def __init__(self):
        self.requests = []  # (method, target, body)
        self.end = DONE
        self.why = ""

    def add(self, method, target, body):
        # aiohttp folds the case of methods; so do we, for all.
        self.requests.append((method.upper(), target, body))

    def ended(self, end, why=""):
        self.end, self.why = end, str(why)
        return self


def text(raw):
    return raw.decode("latin-1")


def by_h11(data):
    seen = Reading()
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    parser.receive_data(data)
    head, body = None, b""
    try:
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                return seen.ended(MORE if head or parser.trailing_data[0] else DONE)
            if event is h11.PAUSED:
                return seen.ended(STOPPED)
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                seen.add(text(head.method), text(head.target), body)
                head = None
                parser.send(h11.Response(status_code=400, headers=[("content-length", "0")]))
                parser.send(h11.EndOfMessage())
                if parser.our_state is not h11.DONE:
                    # It closes after this one; bytes behind it would be for nobody.
                    rest = parser.trailing_data[0]
                    return seen.ended(REFUSED, "bytes after the last request") if rest else seen.ended(STOPPED)
                parser.start_next_cycle()
            else:
                return seen.ended(DONE)
    except h11.RemoteProtocolError as error:
        return seen.ended(REFUSED, error)


class LlhttpEvents:
    """Callbacks of httptools."""

    def __init__(self, seen):
        self.seen, self.parser = seen, None
        self.target, self.body, self.open = b"", b"", False

    def on_message_begin(self):
        self.target, self.body, self.open = b"", b"", True

    def on_url(self, url):
        self.target += url

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.seen.add(text(self.parser.get_method()), text(self.target), self.body)
        self.open = False


def by_httptools(data):
    seen = Reading()
    events = LlhttpEvents(seen)
    events.parser = httptools.HttpRequestParser(events)
    try:
        events.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return seen.ended(STOPPED)
    except httptools.HttpParserError as error:
        return seen.ended(REFUSED, error)
    return seen.ended(MORE if events.open else DONE)


class NoTransport:
    """What aiohttp's stream reader asks of its protocol."""

    _reading_paused = False

    def pause_reading(self):
        pass

    def resume_reading(self, **_):
        pass


def by_aiohttp(data, loop):
    seen = Reading()
    parser = HttpRequestParserPy(
        NoTransport(), loop, limit=LIMIT, max_line_size=LIMIT, max_headers=LIMIT, max_field_size=LIMIT,
        auto_decompress=False,
    )
    messages, switched, why = [], False, None
    try:
        # Byte by byte: an error would take the requests of the same call with it.
        for at in range(len(data)):
            found, switched, _ = parser.feed_data(data[at : at + 1])
            messages += found
            if switched:
                break
    except Exception as error:  # its errors have no common base
        why = error
    for message, payload in messages:
        if payload.exception() is not None:
            return seen.ended(REFUSED, payload.exception())
        if not payload.is_eof():
            if message.method == "CONNECT":
                seen.add(message.method, message.path, b"")
                return seen.ended(STOPPED)
            return seen.ended(REFUSED, why) if why else seen.ended(MORE)
        seen.add(message.method, message.path, payload.read_nowait(-1))
    if why:
        return seen.ended(REFUSED, why)
    if switched:
        return seen.ended(STOPPED)
    return seen.ended(MORE if parser._tail or parser._lines else DONE)


def gunicorn_config():
    config = Config()
    for key, value in {
        "limit_request_line": 0, "limit_request_field_size": 0, "limit_request_fields": 32768,
        "header_map": "dangerous", "permit_unconventional_http_method": True,
    }.items():
        config.set(key, value)
    return config


def by_gunicorn(data, config):
    seen = Reading()
    parser = RequestParser(config, iter([data]), ("192.0.2.1", 1))
    while True:
        try:
            request = next(parser)
            body = request.body.read()
        except StopIteration:
            # Also how it ends between two requests.
            return seen.ended(STOPPED)
        except NoMoreData:
            return seen.ended(MORE)
        except Exception as error:  # parse errors have several bases
            return seen.ended(REFUSED, f"{type(error).__name__} {error}")
        lengths = [value for name, value in request.headers if name == "CONTENT-LENGTH"]
        if lengths and len(body) < int(lengths[0]):
            return seen.ended(MORE)
        seen.add(request.method, request.uri, body)


def by_waitress(data, settings):
    seen = Reading()
    while data:
        parser = HTTPRequestParser(settings)
        while data and not parser.completed:
            taken = parser.received(data)
            data = data[taken:]
        if not parser.completed:
            return seen.ended(MORE)
        if parser.error:
            return seen.ended(REFUSED, parser.error.body)
        if parser.empty:
            continue
        body = parser.get_body_stream().read() if parser.body_rcv is not None else b""
        seen.add(parser.command, parser.request_uri, body)
        if parser.connection_close:
            return seen.ended(REFUSED, "bytes after the last request") if data else seen.ended(STOPPED)
    return seen.ended(DONE)


TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
VISIBLE = rb"[\x21-\x7e\x80-\xff]"
FIELD = re.compile(
    rb"(" + TOKEN + rb"):[ \t]*((?:" + VISIBLE + rb"(?:[\t \x21-\x7e\x80-\xff]*" + VISIBLE + rb")?)?)[ \t]*"
)
CHUNK = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + rb"|" + QUOTED + rb"))?)*"
)
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?")
ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*:.+")
# RFC 9110 section 6.5.1: nothing that frames, routes or authenticates may be sent in a trailer.
NOT_IN_TRAILERS = {b"content-length", b"transfer-encoding", b"host", b"authorization", b"content-type", b"trailer"}
SINGLE = {b"content-length", b"host", b"transfer-encoding"}


class Strict(Exception):
    """The grammar refuses it."""


class Short(Exception):
    """The message isn't complete."""


class Grammar:
    """RFC 9112 as it is written, nothing forgiven."""

    def __init__(self, data, mark):
        self.data, self.at = data, 0
        self.mark = tuple(part.strip().encode() for part in mark.split(":", 1)) if mark else None

    def line(self):
        end = self.data.find(b"\n", self.at)
        rest = self.data[self.at : end + 1 if end >= 0 else None]
        if b"\r" in rest[:-2] or (end >= 0 and not rest.endswith(b"\r\n")):
            raise Strict("a bare CR or LF")
        if end < 0:
            raise Short
        self.at = end + 1
        return rest[:-2]

    def take(self, count):
        if len(self.data) - self.at < count:
            raise Short
        self.at += count
        return self.data[self.at - count : self.at]

    def fields(self):
        fields = []
        while line := self.line():
            match = FIELD.fullmatch(line)
            if not match:
                raise Strict(f"the field line {line!r}")
            fields.append((match[1].lower(), match[2]))
        return fields

    def target(self, method, target):
        if method == b"CONNECT":
            return
        if not (target.startswith(b"/") or (target == b"*" and method == b"OPTIONS") or ABSOLUTE.fullmatch(target)):
            raise Strict(f"the target {target!r}")
        if b"#" in target:
            raise Strict("a fragment in the target")

    def body(self, fields, minor):
        for name in SINGLE:
            if sum(n == name for n, _ in fields) > 1:
                raise Strict(f"{name.decode()} more than once")
        one = dict(fields)
        coding, length = one.get(b"transfer-encoding"), one.get(b"content-length")
        if coding is not None:
            if coding.lower() != b"chunked" or length is not None or minor == b"0":
                raise Strict(f"the framing {coding!r} with length {length!r} in HTTP/1.{minor.decode()}")
            return self.chunks()
        if length is None:
            return b""
        if not re.fullmatch(rb"[0-9]{1,19}", length):
            raise Strict(f"the length {length!r}")
        return self.take(int(length))

    def trailers(self):
        for name, _ in self.fields():
            if name in NOT_IN_TRAILERS:
                raise Strict(f"{name.decode()} in a trailer")

    def chunks(self):
        body = b""
        while True:
            line = self.line()
            match = CHUNK.fullmatch(line)
            if not match:
                raise Strict(f"the chunk line {line!r}")
            size = int(match[1], 16)
            if size == 0:
                self.trailers()
                return body
            body += self.take(size)
            if self.take(2) != b"\r\n":
                raise Strict("a chunk that does not end where its size says")

    def request(self):
        line = self.line()
        match = REQUEST_LINE.fullmatch(line)
        if not match:
            raise Strict(f"the request line {line!r}")
        method, target, minor = match.groups()
        self.target(method, target)
        fields = self.fields()
        hosts = [value for name, value in fields if name == b"host"]
        if len(hosts) > 1 or (minor == b"1" and not hosts) or not all(HOST.fullmatch(h) for h in hosts):
            raise Strict(f"the hosts {hosts!r}")
        body = self.body(fields, minor)
        if self.mark and [v for n, v in fields if n == self.mark[0].lower()] != [self.mark[1]]:
            raise Unknown(text(line))
        return text(method), text(target), body


class Unknown(Exception):
    """A request that the proxy never knew of."""


def by_grammar(data, mark):
    seen = Reading()
    grammar = Grammar(data, mark)
    while grammar.at < len(data):
        try:
            seen.add(*grammar.request())
        except Short:
            return seen.ended(MORE)
        except Strict as error:
            return seen.ended(REFUSED, error)
    return seen


class Judge:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.gunicorn = gunicorn_config()
        self.waitress = Adjustments(max_request_header_size=LIMIT)

    def readings(self, data, mark):
        """What each parser reads, by its name."""
        return {
            "grammar": by_grammar(data, mark),
            "h11": by_h11(data),
            "httptools": by_httptools(data),
            "aiohttp": by_aiohttp(data, self.loop),
            "gunicorn": by_gunicorn(data, self.gunicorn),
            "waitress": by_waitress(data, self.waitress),
        }

    def connection(self, data, mark):
        """(verdict, why, complete requests, who refused it) of one connection's bytes."""
        try:
            readings = self.readings(data, mark)
        except Unknown as error:
            return "ambiguous", f"the proxy doesn't know of {error}", 0, []
        refused = [name for name, seen in readings.items() if seen.end == REFUSED]
        whole = {name: seen for name, seen in readings.items() if name not in refused}
        most = max((seen.requests for seen in readings.values()), key=len)
        for name, seen in readings.items():
            same = seen.requests == (most[: len(seen.requests)] if name in refused else most)
            if not same:
                others = {n: [(m, t, len(b)) for m, t, b in s.requests] for n, s in readings.items()}
                kind = "ambiguous" if len({repr(s.requests) for s in whole.values()}) > 1 else "refused"
                return kind, f"{name} reads otherwise: {others}; refused by {refused}", len(most), refused
        for strict in ("grammar", "h11"):
            if strict in refused:
                return "refused", f"{strict}: {readings[strict].why}", len(most), refused
        return "clean", "", len(most), refused

    def payload(self, item):
        worst, reasons, count, refused_by = "clean", [], 0, set()
        for raw in item["connections"]:
            verdict, why, requests, refused = self.connection(bytes.fromhex(raw), item.get("mark", ""))
            worst = max(worst, verdict, key=["clean", "refused", "ambiguous"].index)
            reasons += [why] if why else []
            count += requests
            refused_by.update(refused)
        return {
            "id": item["id"], "verdict": worst, "why": " | ".join(reasons), "requests": count,
            "refused_by": sorted(refused_by),
        }


PLAIN = (
    b"POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi"
    b"PUT /b HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n"
    b"GET /c HTTP/1.1\r\nHost: a.test\r\n\r\n"
)


def check_the_judge(judge):
    """A parser that is driven wrongly looks like one that refuses: each must read what is plainly right."""
    right = [("POST", "/a", b"hi"), ("PUT", "/b", b"ho"), ("GET", "/c", b"")]
    for name, seen in judge.readings(PLAIN, "").items():
        if seen.requests != right or seen.end == REFUSED:
            sys.exit(f"{name} is driven wrongly: {seen.requests} {seen.end} {seen.why}")


def main():
    judge = Judge()
    check_the_judge(judge)
    for line in sys.stdin:
        print(json.dumps(judge.payload(json.loads(line))))


if __name__ == "__main__":
    main()
