#!/usr/bin/env bash
# Certificates replaced ten times a second under as many full handshakes as the machine gives. The aim: none of them fails,
# and after the last replacement nobody gets anything but the newest.
#
#   bench/rotate.sh [CONNECTIONS] [SECONDS]    16 at once and 30 if not said
#
# Builds the release profile (BIN=DIRECTORY takes what is there), runs the proxy, new TLS 1.3 connections with one request
# each, and a new ECDSA certificate with `reload-ssl` behind it every 100 ms. On free ports. Fails when the aim is missed.
set -euo pipefail
cd "$(dirname "$0")/.."
connections=${1:-16}
seconds=${2:-30}
bin=${BIN:-}
if [ -z "$bin" ]; then
    cargo build --release --locked --workspace --bins
    bin=${CARGO_TARGET_DIR:-target}/release
fi

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

# Waits until the proxy's log has this field, and prints it.
found() {
    for _ in $(seq 200); do
        word=$(sed -n "s|.* $1=\"\\([^\"]*\\)\".*|\\1|p" "$dir/proxy" | head -n 1)
        [ -z "$word" ] || { echo "$word"; return; }
        sleep 0.05
    done
    cat "$dir/proxy" >&2
    return 1
}

# Puts a new certificate in use: status 200 once every worker has it.
replace() {
    "$bin/speedmimi-bench" cert "$dir"
    curl -fsS -o "$dir/reloaded" -X POST "${management}api/v1/config/reload-ssl"
}

load() {
    "$bin/speedmimi-bench" load --target "https://$proxy" --new-connections --body 0 --connections "$connections" "$@"
}

# A number of the load's report.
of() { sed -n "s/^ *\"$1\": \([0-9.]*\).*/\1/p" "$dir/$2" | head -n 1; }

"$bin/speedmimi-bench" cert "$dir"
cat >"$dir/config.yaml" <<EOC
server: {host: 127.0.0.1, port: 0}
ssl: {enabled: true, cert_file: $dir/cert.pem, key_file: $dir/key.pem}
grpc: {port: 0}
routing: {all: {respond: {status: 200}}}
EOC
: >"$dir/proxy" # looked into before the program has begun
"$bin/speedmimi" --config "$dir/config.yaml" 2>"$dir/proxy" &
proxy=$(found listen)
management=$(found management)
load --insecure --duration "${seconds}s" --warmup 0s >"$dir/rotating" &
rotating=$!
replaced=0
next=$(date +%s%N)
while kill -0 $rotating 2>/dev/null; do
    replace
    replaced=$((replaced + 1))
    next=$((next + 100000000))
    rest=$((next - $(date +%s%N)))
    [ "$rest" -le 0 ] || sleep "$(printf '0.%09d' "$rest")"
done
wait $rotating
# Now the newest alone is trusted.
load --ca "$dir/cert.pem" --requests 1000 >"$dir/newest"

echo "replaced      $replaced times"
echo "handshakes    $(of handshakes rotating), $(of rps rotating) a second"
echo "certificates  $(of certificates rotating) different ones seen"
echo "failed        $(of failed rotating)"
echo "afterwards    $(of ok newest) of 1000 with the newest certificate"
[ "$(of failed rotating)" = 0 ] && [ "$(of certificates rotating)" -gt 1 ] && [ "$(of ok newest)" = 1000 ]
