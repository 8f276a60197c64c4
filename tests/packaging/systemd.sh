#!/usr/bin/env bash
# The units as systemd reads them, and how much of the system the service could reach if it were taken over. Fails when a
# unit has a fault, or from an exposure of 1.5 on.
#
#   tests/packaging/systemd.sh
#
# SPEEDMIMI is the program (else that of cargo's debug build): systemd looks whether ExecStart= can be started.
set -euo pipefail
cd "$(dirname "$0")/../.."
speedmimi=$(realpath "${SPEEDMIMI:-${CARGO_TARGET_DIR:-target}/debug/speedmimi}")
units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT
cp dist/systemd/speedmimi.service dist/socket-activation/speedmimi.socket "$units"
# As installed, but for where the program is.
sed -i "s#/usr/bin/speedmimi#$speedmimi#" "$units/speedmimi.service"
faults=$(systemd-analyze verify --man=no "$units/speedmimi.service" "$units/speedmimi.socket" 2>&1)
# That the machine has no user of that name yet is no fault of the units.
faults=$(grep -v 'Failed to resolve user\|Failed to resolve group' <<<"$faults" || true)
[ -z "$faults" ] || { echo "$faults"; exit 1; }
systemd-analyze security --offline=yes --no-pager --threshold=15 dist/systemd/speedmimi.service >"$units/exposure" ||
    { cat "$units/exposure"; exit 1; }
tail -n 1 "$units/exposure"
