#!/usr/bin/env bash
# How long GET /api/v1/stats/server takes while the proxy is loaded as far as it goes. The aim: p99 at most 20 ms.
#
#   bench/stats-under-load.sh [CONNECTIONS] [SECONDS]    64 and 20 if not said
#
# Builds the release profile (BIN=DIRECTORY takes what is there), runs a backend, the proxy with a worker for each CPU and
# a closed-loop load, and asks 50 times a second once the load runs. On a quiet machine; on free ports.
set -euo pipefail
cd "$(dirname "$0")/.."
connections=${1:-64}
seconds=${2:-20}
bin=${BIN:-}
if [ -z "$bin" ]; then
    cargo build --release --locked --workspace --examples --bins
    bin=${CARGO_TARGET_DIR:-target}/release
fi

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

# Waits until a file has a line, and prints what the pattern takes out of it.
found() {
    for _ in $(seq 200); do
        word=$(sed -n "s|$2|\\1|p" "$1" | head -n 1)
        [ -z "$word" ] || { echo "$word"; return; }
        sleep 0.05
    done
    cat "$1" >&2
    return 1
}

: >"$dir/origin" # looked into before the program has begun, as is the proxy's
"$bin/speedmimi-bench" origin --listen 127.0.0.1:0 2>"$dir/origin" &
port=$(found "$dir/origin" '.*listening on http://[^:]*:\([0-9]*\).*')
cat >"$dir/config.yaml" <<EOF
server: {host: 127.0.0.1, port: 0}
grpc: {port: 0}
backends: {origin: [{host: 127.0.0.1, port: $port}]}
routing: {all: {upstream: origin}}
EOF
: >"$dir/proxy"
"$bin/speedmimi" --config "$dir/config.yaml" 2>"$dir/proxy" &
proxy=$(found "$dir/proxy" '.* listen="\([^"]*\)".*')
management=$(found "$dir/proxy" '.* management="http://\([^/"]*\).*')

echo "without load:"
"$bin/examples/stats_latency" "$management" 250
"$bin/speedmimi-bench" load --target "http://$proxy" --connections "$connections" --duration "$((seconds + 2))s" \
    >"$dir/load" &
load=$!
sleep 1
echo "under load:"
"$bin/examples/stats_latency" "$management" $((seconds * 50))
wait "$load"
grep -E '"(requests_per_second|rps|requests|failed|errors)"' "$dir/load" || cat "$dir/load"
