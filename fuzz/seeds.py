"""Seeds for a fuzz target: what the suite has collected already. Usage: seeds.py TARGET FOLDER"""
import gzip
import hashlib
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent


def settings(text, count):
    """The bytes that some targets take their settings from: any, but always the same ones for a text."""
    return hashlib.sha1(text).digest()[:count]


# What strangers send.

REQUESTS = [
    b"GET /a/../b?c=d HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n",
    b"GET http://b:2/x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop, Host, Via\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\r\n",
    b"POST /%7Ea/%2e%2e/ HTTP/1.1\r\nhost:a:80\r\nContent-Length: 5\r\nExpect: 100-continue\r\nContent-Type: application/grpc\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nTE: trailers\r\nConnection: te\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nHTTP2-Settings: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 010\r\nProxy-Authorization: x\r\nProxy-Connection: close\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.9, 6.6.6.6:80\r\nX-Forwarded-For: [::1]:5\r\nX-Forwarded-Proto: https\r\n"
    b"X-Forwarded-Host: h\r\nX-Forwarded-Port: 1\r\nForwarded: for=6\r\nX-Real-IP: 6\r\nX-Request-ID: 6\r\nVia: 1.0 x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6\r\nx_real-ip: 6\r\nX-User: evil\r\nX_User: evil\r\nX-Added:1 \r\n"
    b"CF-Connecting-IP: 1.2.3.4\r\nTrue-Client-IP: 6\r\nClient-Cert: :AA==:\r\nX-Forwarded-Client: 6\r\n\r\n",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 3\r\nX-Backend-Load: cpu=0.1\r\n\r\n",
    b"HTTP/1.0 200 Very well\r\nContent-Length: 03\r\nConnection: keep-alive, X-Hop\r\nX-Hop:1\r\nKeep-Alive: 5\r\nSet-Cookie: a=b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\nContent-Type: text/event-stream\r\n\r\n",
    b"HTTP/1.1 204 \r\nX_Frame_Options: x\r\nVia: 1.1 x\r\nVary: a\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\nETag: \"a\"\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: k\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Backend-Load: cpu=1\r\n\r\n",
    b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 500 \r\nProxy-Authenticate: x\r\nDate: now\r\n\r\n",
]


def payloads():
    for name in ("corpus.json.gz", "cases.json.gz"):
        for item in json.load(gzip.open(HERE / "tests/conformance" / name)):
            yield bytes.fromhex(item["hex"]).replace(b"HOSTHOST", b"a.test")


def with_settings(heads, count):
    """Each head with every bit of its settings set once, with none and with all of them."""
    for head in heads:
        for bits in [0, (1 << 8 * count) - 1, *(1 << bit for bit in range(8 * count))]:
            yield bits.to_bytes(count, "little") + head


def request_heads():
    yield from with_settings(REQUESTS, 5)
    for payload in payloads():
        yield settings(payload, 5) + payload


def response_heads():
    yield from with_settings(RESPONSES, 3)
    for payload in payloads():
        fields = payload.partition(b"\r\n")[2]
        for line in (b"HTTP/1.1 200 OK", b"HTTP/1.0 404 Not Found", b"HTTP/1.1 103 Early Hints"):
            yield settings(payload + line, 3) + line + b"\r\n" + fields


def translations():
    """Requests and answers as HTTP/1.1 has them, and their lines as those of HTTP/2; the first byte says which."""
    for heads, http2, http1 in ((REQUESTS, 0, 2), (RESPONSES, 1, 3)):
        for head in heads:
            start, *lines = head.decode().split("\r\n")
            words = start.split(" ")
            first = " ".join(["GET", "http://a.test/b?c"] if http2 == 0 and not words[1].startswith("/") else words[:2])
            first = first if http2 == 0 else words[1]
            first = first.replace(" /", " http://a.test/")
            named = (line.partition(":") for line in lines if line)
            fields = [f"{name.lower()}:{value.strip()}" for name, _, value in named]
            for facts in range(0, 32, 4):
                yield bytes([http2 | facts]) + "\n".join([first, *fields]).encode()
                yield bytes([http1 | facts]) + head


def chunked():
    for payload in payloads():
        body = payload.partition(b"\r\n\r\n")[2]
        if body:
            yield settings(body, 1) + body


def proxy_headers():
    yield b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 80\r\nGET / HTTP/1.1\r\n"
    yield b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n"
    yield b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n"
    head = b"\r\n\r\n\0\r\nQUIT\n"
    yield head + b"\x21\x11\x00\x0c" + bytes(range(12))
    yield head + b"\x21\x21\x00\x24" + bytes(range(36))
    yield head + b"\x21\x31\x00\xd8" + bytes(216)
    yield head + b"\x20\x00\x00\x00"
    yield head + b"\x21\x11\x00\x13" + bytes(range(12)) + b"\x04\x00\x04abcd"


# Configuration.

# What a key may hold, by the words the manual has for it: good values and bad ones. JSON is YAML.
VALUES = [
    ("a duration", ["250ms", "1h30m", "0", "30", "1s1h", "9999h"]),
    ("a size", ["64KiB", "10MB", 0, "1_0", "-1", "9TiB"]),
    ("a whole number", [1, 200, "1_000", "1__0", -1, 99999999999]),
    ("true or false", ["on", "no", True, "maybe"]),
    ("auto or a whole number", ["auto", 4, 0]),
    ("off, auto or a list of CPU", ["auto", [0, 1], [0, 0], "on"]),
    ("a list, each ADDRESS:PORT", [["127.0.0.1:90", "[::]:91", "unix:/run/a"], ["127.0.0.1:90", "127.0.0.1:90"], ["::1:90"]]),
    ("a list, each an IP address", [["127.0.0.2", "::1"], ["127.0.0.2", "127.0.0.2"], ["a"]]),
    ("a list, each an address or a CIDR", [["10.0.0.0/8", "::1", "fd00::/8"], ["10.0.0.1/8"], ["10.0.0.0/33", 1]]),
    ("a list, each a host name", [["a.test", "*.a.test", "[::1]", "xn--a"], ["a.test", "A.test."], ["*a", "a_b", "a:80", "a*"]]),
    ("a list, each a field name", [["X-A", "server"], ["X-A", "x-a"], ["connection", "transfer_encoding", "host", "a b"]]),
    ("a map of field names", [{"X-A": "1", "Host": "h"}, {"x-a": "1", "X-A": "2"}, {"te": "x", "a b": "x", "X": "a\nb", "Y": " "}]),
    ("a list of entries", [[{"cert_file": "a", "key_file": "b"}], []]),
    ("an IP address", ["::1", "127.0.0.1", "a", ""]),
    ("an address, a name", ["10.0.0.1", "a.test", "[::1]", "unix:/run/b", "unix:", "a:80", "*"]),
    ("a host, maybe with a port", ["a.test:80", "[::1]:1", "a b", "a:x"]),
    ("a field name", ["X-Client", "X-Forwarded-For", "content-length", "a b"]),
    ("a cookie name", ["sid", "a;b"]),
    ("a secret", ["0123456789abcdef0123456789abcdef", "short"]),
    ("client_ip, header", ["uri", "header:X-A", "cookie:sid", "header:", "client_ip", "ip"]),
    ("a path that begins with /, maybe", ["/health?x=1", "health", "/a b"]),
    ("a path that begins", ["/a/b/", "/a/../b", "/%41", "/%2f", "//", "a"]),
    ("a status or a range", ["200", "200-399", "399-200", "99-600"]),
    ("a URL or a path", ["https://${host}${path}${query}", "/x", "${nope}", "a\nb"]),
    ("off, stdout", ["stdout", "off", "./access.log", "stderr", "off.log"]),
    ("the name of an algorithm", ["cubic", "a/b"]),
    ("a name of", ["u", "v", "a b"]),
    ("a line of text", ["Backend one", "a\nb"]),
    ("a file", ["certs/a.crt", ""]),
    ("a text", ["hello\n", ""]),
    ("a map of keys", [{}, None, []]),
]
# What takes two keys.
PAIRS = [
    "server: {real_ip_header: Host}",
    "backends: {u: [{host: 'unix:/run/b'}]}",
    "backends: {u: [{host: b, port: 1, health_check: {type: http, path: ''}}]}",
    "backends: {u: [{host: b, port: 1, health_check: {type: tcp, path: /x}}]}",
    "routing: {r: {respond: {status: 204}, strip_prefix: on, load_balancer: hash}}",
    "upstreams: {u: {sticky: {cookie: a, secret: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\\nb'}}}",
    "routing: {r: {upstream: u, redirect: {location: /}}}",
    "server: {port: 80, listen: ['0.0.0.0:80', '127.0.0.1:80'], trusted_proxies: [10.0.0.0/8], proxy_protocol: accept}",
]
BASE = {"backends": {"u": [{"host": "127.0.0.1", "port": 8081}]}, "routing": {"r": {"upstream": "u"}}}


def manual():
    """Each key of the manual: its path and the line of facts about it. A test holds the manual to the program."""
    text = (HERE / "docs/configuration.md").read_text()
    return re.findall(r"^### `([^`]+)`\n\n(.+)$", text, re.M)


def values(facts):
    for text in re.findall(r"default `([^`]*)`", facts):
        yield json.loads(text) if text in ("[]", "{}") else text
    kind = facts.split(" · ")[0]
    if kind.startswith("`"):
        yield from re.findall(r"`([^`]+)`", kind)
        yield "other"
    yield from next((good for words, good in VALUES if kind.startswith(words)), [])


def put(tree, path, value):
    """Puts a value at a path of the manual, where NAME is `u` or `r` and `[]` the first entry."""
    at, steps = tree, path.replace("routing.NAME", "routing.r").replace("NAME", "u").replace("[]", ".0").split(".")
    for step, following in zip(steps, steps[1:]):
        if step == "0":
            at[:] = at or [{}]
            at = at[0]
        elif not isinstance(at.get(step), (dict, list)):
            at = at.setdefault(step, [{}] if following == "0" else {})
        else:
            at = at[step]
    at[steps[-1]] = value
    return tree


def base():
    return json.loads(json.dumps(BASE))


def of_every_key():
    everything = base()
    for path, facts in manual():
        found = list(values(facts))
        for value in found:
            tree = base()
            if ".redirect" in path or ".respond" in path:
                del tree["routing"]["r"]["upstream"]
            if path.startswith("routing.NAME.redirect.status"):
                put(tree, "routing.NAME.redirect.location", "/x")
            yield json.dumps(put(tree, path, value))
        if found and not facts.startswith("a map of keys") and ".redirect" not in path and ".respond" not in path:
            put(everything, path, found[0])
    for text in PAIRS:
        yield text
        yield "\n".join([text, *(f"{key}: {json.dumps(BASE[key])}" for key in BASE if not text.startswith(key))])
    yield json.dumps(everything)
    yield json.dumps(everything, indent=1)


def in_tests():
    """The literals of the tests that look like configuration."""
    sources = [*(HERE / "src/config").glob("*.rs"), *(HERE / "tests").glob("*.rs"), *(HERE / "tests/it").glob("*.rs")]
    for source in sources:
        for literal in re.findall(r'"((?:[^"\\]|\\.)*)"', source.read_text(), re.S):
            if re.search(r"\b(server|backends|upstreams|routing|log|grpc|ssl): ?[{\\]", literal):
                text = re.sub(r"\\\n\s*", "", literal).replace(r"\n", "\n").replace(r"\"", '"')
                yield text.replace("{{", "{").replace("}}", "}")


def config():
    for path in ["configs/config.yaml", "src/config/promised.yaml"]:
        yield (HERE / path).read_text()
    for page in [*(HERE / "docs").glob("*.md"), HERE / "README.md"]:
        for block in page.read_text().split("```yaml\n")[1:]:
            yield block.split("```")[0]
    for case in (HERE / "src/config/faults.txt").read_text().split("### "):
        lines = case.splitlines()[1:]
        yield "\n".join(line for line in lines if not line.startswith("> "))
    yield from of_every_key()
    yield from in_tests()


# What of a key is changed: one value, several, a list, a backend that comes or goes, something taken out.
PATCHES = [
    {"log": {"level": "debug"}, "server": {"port": 81, "max_headers": 7}},
    {"server": {"listen": ["127.0.0.1:90", "[::]:91"], "trusted_proxies": ["10.0.0.0/8"]}},
    {"backends": {"u": [{"host": "b", "port": 1, "weight": 7}, {"id": "x", "host": "::1", "port": 2}]}},
    {"backends": {"v": [{"host": "c", "port": 3}]}, "routing": {"v": {"path": "/v", "upstream": "v"}}},
    {"upstreams": {"u": {"retries": 1, "queue": {"size": 5}, "sticky": {"cookie": "c"}}}},
    {"routing": {"r": {"hosts": ["a.test"], "request_headers": {"set": {"X-A": "#1: {}", "Host": "h"}}}}},
    {"server": None, "upstreams": None, "log": None},
]


def edits():
    for text in config():
        for patch in PATCHES:
            yield text + "\0" + json.dumps(patch)


TARGETS = {
    "request_head": request_heads,
    "response_head": response_heads,
    "chunked": chunked,
    "proxy_header": proxy_headers,
    "translate": translations,
    "config": lambda: (text.encode() for text in config()),
    "config_edit": lambda: (text.encode() for text in edits()),
}

if __name__ == "__main__":
    target, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    if target not in TARGETS:
        sys.exit(f"no such target: {target}")
    for seed in TARGETS[target]():
        (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
