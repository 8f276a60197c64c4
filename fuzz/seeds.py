"""Seeds for a fuzz target: what the suite has collected already. Usage: seeds.py TARGET FOLDER"""
import gzip
import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent
TARGET, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])


def payloads():
    for name in ("corpus.json.gz", "cases.json.gz"):
        for item in json.load(gzip.open(HERE / "tests/conformance" / name)):
            yield bytes.fromhex(item["hex"]).replace(b"HOSTHOST", b"a.test")


def seeds():
    if TARGET == "request_head":
        yield from payloads()
    elif TARGET == "chunked":
        for payload in payloads():
            body = payload.partition(b"\r\n\r\n")[2]
            if body:
                yield body
    elif TARGET == "response_head":
        for payload in payloads():
            fields = payload.partition(b"\r\n")[2]
            for line in (b"HTTP/1.1 200 OK", b"HTTP/1.0 404 Not Found", b"HTTP/1.1 103 Early Hints"):
                yield line + b"\r\n" + fields
    elif TARGET == "proxy_header":
        yield b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 80\r\nGET / HTTP/1.1\r\n"
        yield b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n"
        yield b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n"
        head = b"\r\n\r\n\0\r\nQUIT\n"
        yield head + b"\x21\x11\x00\x0c" + bytes(range(12))
        yield head + b"\x21\x21\x00\x24" + bytes(range(36))
        yield head + b"\x21\x31\x00\xd8" + bytes(216)
        yield head + b"\x20\x00\x00\x00"
        yield head + b"\x21\x11\x00\x13" + bytes(range(12)) + b"\x04\x00\x04abcd"
    elif TARGET == "config":
        for path in ["configs/config.yaml", "src/config/promised.yaml"]:
            yield (HERE / path).read_bytes()
        for page in ["docs/configuration.md", "README.md"]:
            for block in (HERE / page).read_text().split("```yaml\n")[1:]:
                yield block.split("```")[0].encode()
        for case in (HERE / "src/config/faults.txt").read_text().split("### "):
            lines = case.splitlines()[1:]
            yield "\n".join(line for line in lines if not line.startswith("> ")).encode()
    else:
        sys.exit(f"no such target: {TARGET}")


for seed in seeds():
    (FOLDER / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
