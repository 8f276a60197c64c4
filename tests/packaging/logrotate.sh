#!/usr/bin/env bash
# The access log rotated as the package does it, while requests come: no line is lost, and the new file is written to.
#
#   tests/packaging/logrotate.sh
#
# SPEEDMIMI is the program (else that of cargo's debug build). Files are in a directory of their own; nothing stays.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=$PATH:/usr/sbin
speedmimi=$(realpath "${SPEEDMIMI:-${CARGO_TARGET_DIR:-target}/debug/speedmimi}")
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
mkdir -m 750 "$dir/log" "$dir/bin"
cat >"$dir/config.yaml" <<END
server: {host: 127.0.0.1, port: 0}
grpc: {enabled: false}
log: {access: "$dir/log/access.log"}
routing: {all: {respond: {status: 200, body: here}}}
END
"$speedmimi" run --config "$dir/config.yaml" 2>"$dir/said" &
proxy=$!
port=
for _ in $(seq 200); do
    port=$(sed -n 's/.*listen="127\.0\.0\.1:\([0-9]*\)".*/\1/p' "$dir/said")
    [ -z "$port" ] || break
    sleep 0.05
done
[ -n "$port" ] || { cat "$dir/said"; exit 1; }
# Who asks systemd for the process gets ours.
printf '#!/bin/sh\necho %s\n' "$proxy" >"$dir/bin/systemctl"
chmod +x "$dir/bin/systemctl"
sed -e "s#/var/log/speedmimi#$dir/log#" -e "s#speedmimi speedmimi#$(id -un) $(id -gn)#" dist/logrotate.d/speedmimi >"$dir/conf"
chmod 644 "$dir/conf"
ask() { for _ in $(seq "$1"); do
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET / HTTP/1.0\r\nHost: a\r\n\r\n' >&3
    grep -q 'here' <&3
    exec 3>&-
done; }
lines() { cat "$dir"/log/* 2>/dev/null | wc -l; }
until_lines() { for _ in $(seq 200); do [ "$(lines)" -ge "$1" ] && return; sleep 0.05; done; echo "$(lines) lines, not $1"; exit 1; }
ask 20
until_lines 20
PATH=$dir/bin:$PATH logrotate --force --state "$dir/state" "$dir/conf"
[ "$(ls "$dir/log" | wc -l)" -eq 2 ] || { ls -l "$dir/log"; exit 1; }
ask 20
until_lines 40
for _ in $(seq 200); do [ -s "$dir/log/access.log" ] && break; ask 1; done
[ -s "$dir/log/access.log" ] || { echo "nothing is written to the new file"; exit 1; }
echo "rotated: $(wc -l <"$dir/log/access.log.1") lines in the old file, $(wc -l <"$dir/log/access.log") in the new one"
