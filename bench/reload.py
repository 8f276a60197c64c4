#!/usr/bin/env python3
"""What changes of the configuration cost the traffic that they don't concern.

Starts an origin, SpeedMimi with management, a closed-loop load, and idle-looking WebSockets and event streams on routes
of their own; then changes one backend's weight through the API so many times a second, and tells what that did: failed
requests, closed tunnels and streams, p99 with and without changes, resident memory before and after. Loopback only; ends
by itself. Needs `cargo build --release --workspace` first.

    bench/reload.py --rate 10 --seconds 30
    bench/reload.py --rate 0.2267 --seconds 600     # 136 in ten minutes
"""
import argparse
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def event_origin(listener):
    """An event a second to everybody who asks; a WebSocket handshake is answered and every frame after it echoed."""
    selector, streams = selectors.DefaultSelector(), []
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ, None)
    due = time.monotonic() + 1
    while True:
        for key, _ in selector.select(max(0, due - time.monotonic())):
            if key.fileobj is listener:
                conn, _ = listener.accept()
                conn.setblocking(False)
                selector.register(conn, selectors.EVENT_READ, {"open": False})
                continue
            conn, state = key.fileobj, key.data
            try:
                data = conn.recv(65536)
            except OSError:
                data = b""
            if not data:
                selector.unregister(conn)
                conn.close()
                if conn in streams:
                    streams.remove(conn)
            elif state["open"]:
                conn.send(data)
            else:
                state["open"] = True
                if b"/events" in data.split(b"\r\n")[0]:
                    conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                    streams.append(conn)
                else:
                    conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        if time.monotonic() >= due:
            due += 1
            for conn in list(streams):
                try:
                    conn.send(b"data: tick\n\n")
                except OSError:
                    pass


def hold(port, path, upgrade):
    """A connection that stays open; returns it after its answer's head."""
    conn = socket.create_connection(("127.0.0.1", port))
    fields = "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    conn.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields if upgrade else ''}\r\n".encode())
    head = conn.recv(4096)
    assert head.startswith(b"HTTP/1.1 101" if upgrade else b"HTTP/1.1 200"), head
    return conn


def is_open(conn, upgrade):
    """Whether it still carries bytes: a frame comes back, or an event has come within two seconds."""
    conn.settimeout(3)
    try:
        if upgrade:
            conn.sendall(b"\x81\x80\0\0\0\0")
        return bool(conn.recv(65536))
    except OSError:
        return False


def rss(pid):
    text = open(f"/proc/{pid}/smaps_rollup").read()
    return 1024 * int(re.search(r"^Rss:\s+(\d+)", text, re.M).group(1))


def api(port, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def load(bench, port, connections, seconds):
    command = [bench, "load", "--target", f"http://127.0.0.1:{port}", "-c", str(connections), "-d", f"{seconds}s"]
    return subprocess.Popen(command + ["--timeout", "30s"], stdout=subprocess.PIPE, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=10, help="changes a second")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--held", type=int, default=500, help="WebSockets, and as many event streams")
    parser.add_argument("--bin", default=os.path.join(ROOT, "target/release"))
    options = parser.parse_args()
    proxy_bin, bench = os.path.join(options.bin, "speedmimi"), os.path.join(options.bin, "speedmimi-bench")
    origin_port, port, management = free_port(), free_port(), free_port()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    threading.Thread(target=event_origin, args=(listener,), daemon=True).start()
    children = [subprocess.Popen([bench, "origin", "--listen", f"127.0.0.1:{origin_port}"])]
    config = tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False)
    config.write(
        f"""server: {{host: 127.0.0.1, port: {port}}}
grpc: {{port: {management}}}
backends:
  api:
    - {{id: a, host: 127.0.0.1, port: {origin_port}, weight: 100}}
    - {{id: b, host: 127.0.0.1, port: {origin_port}, weight: 100}}
  live: [{{id: live, host: 127.0.0.1, port: {listener.getsockname()[1]}}}]
routing:
  api: {{path: /, upstream: api, load_balancer: weight}}
  live: {{path: /live, upstream: live}}
"""
    )
    config.close()
    proxy = subprocess.Popen([proxy_bin, "run", "--config", config.name], stderr=subprocess.DEVNULL)
    children.append(proxy)
    try:
        for _ in range(100):
            try:
                api(management, "GET", "/api/v1/config")
                break
            except OSError:
                time.sleep(0.1)
        sockets = [hold(port, "/live/ws", True) for _ in range(options.held)]
        streams = [hold(port, "/live/events", False) for _ in range(options.held)]
        quiet = load(bench, port, options.connections, options.seconds if options.seconds <= 60 else 60)
        quiet = json.loads(quiet.communicate()[0])
        busy = load(bench, port, options.connections, options.seconds)
        time.sleep(3)
        before, changes, took = rss(proxy.pid), 0, []
        began = time.monotonic()
        while time.monotonic() - began < options.seconds - 4:
            at = time.monotonic()
            weight = 50 + changes % 100
            body = {"upstream": "api", "backend": {"id": "a", "weight": weight}}
            api(management, "PUT", "/api/v1/backends/update?persist=false", body)
            changes += 1
            took.append(time.monotonic() - at)
            time.sleep(max(0, began + changes / options.rate - time.monotonic()))
        after = rss(proxy.pid)
        busy = json.loads(busy.communicate()[0])
        closed = sum(not is_open(c, True) for c in sockets), sum(not is_open(c, False) for c in streams)
        took.sort()
        p99 = quiet["latency_us"]["p99"], busy["latency_us"]["p99"]
        print(f"changes                  {changes}, the slowest answered after {took[-1] * 1e3:.0f} ms")
        print(f"failed requests          {quiet['total']['failed']} without changes, {busy['total']['failed']} with")
        print(f"requests                 {quiet['total']['ok']} and {busy['total']['ok']}")
        print(f"closed                   {closed[0]} WebSockets, {closed[1]} event streams of {options.held} each")
        print(f"p99                      {p99[0] / 1e3:.1f} ms without changes, {p99[1] / 1e3:.1f} ms with: {p99[1] / p99[0]:.2f}")
        print(f"resident memory          {before / 2**20:.1f} MiB before, {after / 2**20:.1f} after: {(after - before) / 2**20:+.2f} MiB")
        bad = busy["total"]["failed"] or any(closed) or (after - before > max(2 << 20, before // 100))
        sys.exit(1 if bad or p99[1] > 1.2 * p99[0] else 0)
    finally:
        for child in children:
            child.send_signal(signal.SIGKILL)
        os.unlink(config.name)


main()
