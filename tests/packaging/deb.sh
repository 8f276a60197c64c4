#!/usr/bin/env bash
# The Debian package from its installation to its purge, in a system of its own: installed, configured, the installed program
# run by its user with the installed configuration, installed once more over changed files, removed, purged.
#
#   tests/packaging/deb.sh speedmimi_0.1.0-1_amd64.deb
#
# As root. Makes the system by debootstrap, of which nothing stays; SUITE (bookworm) and MIRROR as debootstrap takes
# them. Services aren't started there, as no systemd runs: what the unit would start is started by hand. Not part of .ci/run.
set -euo pipefail
export PATH=$PATH:/usr/sbin LC_ALL=C
deb=$(realpath "$1")
root=$(mktemp -d)
chmod 755 "$root"
proxy=
end() {
    [ -z "$proxy" ] || kill "$proxy" 2>/dev/null || true
    umount "$root/proc" 2>/dev/null || true
    rm -rf --one-file-system "$root"
}
trap end EXIT
hold() { if "${@:2}"; then echo "ok    $1"; else echo "FAULT $1"; exit 1; fi; }
inside() { chroot "$root" "$@"; }

debootstrap --variant=minbase --include=ca-certificates,systemd-standalone-sysusers "${SUITE:-bookworm}" "$root" ${MIRROR:-} >"$root.log" 2>&1 ||
    { tail "$root.log"; exit 1; }
rm -f "$root.log"
# The ports of the installed configuration are this machine's.
! (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null || { echo "port 8080 is in use here"; exit 1; }
mount -t proc proc "$root/proc"
cp "$deb" "$root/p.deb"
inside dpkg --install /p.deb
hold "the user is there" inside getent passwd speedmimi
owner() { inside stat -c '%U:%G %a' "$1"; }
hold "the configuration is the user's alone" [ "$(owner /etc/speedmimi/config.yaml)" = "speedmimi:speedmimi 640" ]
hold "its directory too" [ "$(owner /etc/speedmimi)" = "speedmimi:speedmimi 750" ]
hold "that of the logs too" [ "$(owner /var/log/speedmimi)" = "speedmimi:speedmimi 750" ]
hold "the configuration is sound" inside speedmimi check --config /etc/speedmimi/config.yaml

chroot "$root" setpriv --reuid speedmimi --regid speedmimi --clear-groups --no-new-privs --bounding-set=-all \
    /usr/bin/speedmimi run --config /etc/speedmimi/config.yaml &
proxy=$!
for _ in $(seq 100); do inside speedmimi healthcheck >/dev/null && break; sleep 0.1; done
hold "it is ready" inside speedmimi healthcheck
exec 3<>/dev/tcp/127.0.0.1/8080
printf 'GET / HTTP/1.0\r\nHost: a\r\n\r\n' >&3
hold "it answers" grep -q 'SpeedMimi is installed' <&3
exec 3>&-
kill -TERM "$proxy"
wait "$proxy"
proxy=
hold "it logged" grep -q '"status":200' "$root/var/log/speedmimi/access.log"

echo '# mine' >>"$root/etc/speedmimi/config.yaml"
inside dpkg --install /p.deb
hold "an upgrade leaves the configuration" grep -q '# mine' "$root/etc/speedmimi/config.yaml"
hold "and whose it is" [ "$(owner /etc/speedmimi/config.yaml)" = "speedmimi:speedmimi 640" ]
inside dpkg --remove speedmimi
hold "removal leaves the configuration" [ -e "$root/etc/speedmimi/config.yaml" ]
inside dpkg --purge speedmimi
left=$(cd "$root" && find etc var usr -iname '*speedmimi*' -not -path 'var/lib/dpkg/*')
hold "purging leaves nothing${left:+, but: $left}" [ -z "$left" ]
