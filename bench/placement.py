#!/usr/bin/env python3
"""What placing SpeedMimi on the machine in one way or another is worth here.

Each way is a start of the proxy of its own, with the same load, in rounds that take turns; told are the medians of the paired
ratios to the proxy as shipped: CPU time a request, requests a second, p99. Loopback only; ends by itself; what it sets of
the machine (huge pages, busy polling) it puts back. Needs root and `cargo build --release --workspace` first.

    bench/placement.py --rounds 7 --seconds 3
"""
import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# name: (keys of `server`, environment, words before the command, settings of the machine)
WAYS = {
    "as shipped": ({}, {}, [], {}),
    "as shipped, again": ({}, {}, [], {}),
    "cpu_affinity: auto": ({"cpu_affinity": "auto"}, {}, [], {}),
    "cpu_affinity: auto, steering: cpu": ({"cpu_affinity": "auto", "steering": "cpu"}, {}, [], {}),
    "real-time priority (SCHED_FIFO 1)": ({}, {}, ["chrt", "-f", "1"], {}),
    "memory of one NUMA node": ({}, {}, ["numactl", "--localalloc"], {}),
    "congestion_control: bbr": ({"congestion_control": "bbr"}, {}, [], {}),
    "huge pages for all memory": ({}, {"MIMALLOC_ALLOW_LARGE_OS_PAGES": "1"}, [], {"vm/nr_hugepages": "128"}),
    "busy polling, 50 us": ({}, {}, [], {"net/core/busy_poll": "50", "net/core/busy_read": "50"}),
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, process):
    end = time.monotonic() + 10
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
    sys.exit(f"{process.args[-1]} does not listen on port {port}")


@contextlib.contextmanager
def running(command, port, **more):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    try:
        wait_for(port, process)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@contextlib.contextmanager
def machine(settings):
    before = {}
    try:
        for name, value in settings.items():
            with open(f"/proc/sys/{name}") as file:
                before[name] = file.read()
            with open(f"/proc/sys/{name}", "w") as file:
                file.write(value)
        yield
    finally:
        for name, value in before.items():
            with open(f"/proc/sys/{name}", "w") as file:
                file.write(value)


def measure(way, options, origin, directory):
    keys, environment, before, settings = WAYS[way]
    port = free_port()
    # Without it, what the machine has as a default would be compared with itself.
    keys = {"host": "127.0.0.1", "port": port, "workers": options.workers, "congestion_control": "cubic", **keys}
    path = os.path.join(directory, "placement.yaml")
    with open(path, "w") as file:
        json.dump({"server": keys, "backends": {"default": [{"id": "a", "host": "127.0.0.1", "port": origin, "max_conn": 0}]},
                   "routing": {"default": {"path": "/", "upstream": "default"}}, "grpc": {"enabled": False}}, file)
    with machine(settings), running([*before, options.speedmimi, "run", "--config", path], port,
                                    env={**os.environ, **environment}) as proxy:
        command = [options.bench, "load", "--target", f"http://127.0.0.1:{port}", "-c", str(options.connections),
                   "-d", f"{options.seconds}s", "-t", "2", "--pid", str(proxy.pid)]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if report["answered_percent"] != 100.0:
        sys.exit(f"{way}: {report['answered_percent']} % answered")
    return report["process"]["cpu_us_per_request"], report["rps"], report["latency_us"]["p99"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--speedmimi", default=f"{ROOT}/target/release/speedmimi")
    parser.add_argument("--bench", default=f"{ROOT}/target/release/speedmimi-bench")
    options = parser.parse_args()
    ways = [way for way, (_, _, before, _) in WAYS.items() if not before or shutil.which(before[0])]
    for way in WAYS.keys() - set(ways):
        print(f"left out, {WAYS[way][2][0]} is missing: {way}", file=sys.stderr)
    figures = {way: [] for way in ways}
    origin = free_port()
    with tempfile.TemporaryDirectory() as directory, \
            running([options.bench, "origin", "--listen", f"127.0.0.1:{origin}"], origin):
        for at in range(options.rounds):
            for way in ways:
                figures[way].append(measure(way, options, origin, directory))
            print(f"round {at + 1} of {options.rounds}", file=sys.stderr)
    base = figures["as shipped"]
    print(f"Linux {platform.release()}, {os.cpu_count()} CPUs, {options.workers} workers, {options.connections} connections, "
          f"{options.rounds} rounds of {options.seconds} s\n")
    print("| | CPU a request | quartiles | requests a second | p99 |\n|---|---|---|---|---|")
    for way in ways:
        ratios = [[one[i] / other[i] for one, other in zip(figures[way], base)] for i in range(3)]
        low, _, high = statistics.quantiles(ratios[0], n=4)
        cpu, rps, p99 = (statistics.median(ratio) for ratio in ratios)
        print(f"| {way} | {cpu:.2f} | {low:.2f} to {high:.2f} | {rps:.2f} | {p99:.2f} |")


if __name__ == "__main__":
    main()
