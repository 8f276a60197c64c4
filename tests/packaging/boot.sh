#!/usr/bin/env bash
# The Debian package in a system that systemd has booted: the unit with all of its hardening, reloads, a fault in the
# configuration, log rotation, socket activation over restarts under requests, and a worker that stands still.
#
#   tests/packaging/boot.sh speedmimi_0.1.0-1_amd64.deb
#
# As root, on Linux with namespaces; takes some two minutes. The system is made by debootstrap (SUITE, MIRROR as it takes
# them) and has a network, processes, mounts and a control group of its own; nothing stays. Not part of .ci/run.
set -euo pipefail
export PATH=$PATH:/usr/sbin LC_ALL=C

# Within the namespaces: puts the system together, and becomes its first process.
if [ "${1:-}" = --init ]; then
    root=$2
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    mount -t sysfs -o ro sysfs "$root/sys"
    groups=$root/sys/fs/cgroup
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        mount -t cgroup2 cgroup "$groups"
    else
        mount -t tmpfs -o mode=755 tmpfs "$groups"
        mkdir "$groups"/{systemd,memory,pids,cpu}
        mount -t cgroup -o none,name=systemd cgroup "$groups/systemd"
        for controller in memory pids cpu; do mount -t cgroup -o $controller cgroup "$groups/$controller"; done
    fi
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null zero full random urandom tty; do
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    mount -t tmpfs tmpfs "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    mkdir "$root/before"
    cd "$root"
    pivot_root . before
    umount -l /before
    exec env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system
fi

deb=$(realpath "$1")
dir=$(mktemp -d)
chmod 755 "$dir"
root=$dir/root
groups=()
first=
end() {
    [ -z "$first" ] || kill -KILL "$first" 2>/dev/null || true
    wait 2>/dev/null || true
    sleep 1 # until the kernel has taken the namespaces apart
    for group in "${groups[@]}"; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
    rm -rf --one-file-system "$dir"
}
trap end EXIT

debootstrap --variant=minbase --include=ca-certificates,systemd-sysv,dbus,init-system-helpers,logrotate,curl,strace,procps \
    "${SUITE:-bookworm}" "$root" ${MIRROR:-} >"$dir/log" 2>&1 || { tail "$dir/log"; exit 1; }
cp "$deb" "$root/p.deb"
chroot "$root" dpkg --install /p.deb >"$dir/log" 2>&1 || { tail "$dir/log"; exit 1; }

hierarchies=(/sys/fs/cgroup)
[ -e /sys/fs/cgroup/cgroup.controllers ] || hierarchies=(/sys/fs/cgroup/{systemd,memory,pids,cpu})
for hierarchy in "${hierarchies[@]}"; do groups+=("$hierarchy/speedmimi-boot"); done
mkdir -p "${groups[@]}"
(
    for group in "${groups[@]}"; do echo $BASHPID >"$group/cgroup.procs"; done
    exec unshare --pid --mount --net --ipc --uts --cgroup --fork --kill-child "$0" --init "$root"
) >"$dir/log" 2>&1 &
outer=$!
for _ in $(seq 100); do
    first=$(pgrep -P "$outer" || true)
    [ -n "$first" ] && [ "$(cat "/proc/$first/comm" 2>/dev/null)" = systemd ] && break
    sleep 0.1
done
inside() { timeout 120 nsenter -t "$first" -p -m -n -i -u -C -r -w env -i PATH=/usr/sbin:/usr/bin SYSTEMD_PAGER= bash -c "$1"; }
hold() {
    for _ in $(seq 100); do if inside "$2" >"$dir/log" 2>&1; then echo "ok    $1"; return; fi; sleep 0.1; done
    echo "FAULT $1"
    cat "$dir/log"
    inside 'systemctl status speedmimi; journalctl --unit speedmimi --output cat | tail -n 30' || true
    exit 1
}
says() { echo "systemctl show speedmimi --property $1 --value | grep -q '$2'"; }

hold "it is there once booted" "$(says SubState '^running$')"
hold "it answers" 'curl -sf http://127.0.0.1:8080/ | grep -q installed'
hold "without a capability, behind a filter of system calls" \
    'grep -q "CapBnd:.*0000000000000000" /proc/$(pidof speedmimi)/status && grep -q "Seccomp:.*2" /proc/$(pidof speedmimi)/status'
hold "systemd shows its figures" "$(says StatusText 'connections')"
hold "management writes the configuration" 'curl -sf -X PATCH http://127.0.0.1:9091/api/v1/config \
    -H "Content-Type: application/json" -d "{\"server\":{\"idle_timeout\":\"70s\"}}" && grep -q idle_timeout /etc/speedmimi/config.yaml'
hold "it reloads" 'systemctl reload speedmimi'
inside 'echo "sever: {}" >>/etc/speedmimi/config.yaml && systemctl reload speedmimi'
hold "a fault leaves it as it is, and is shown" "$(says StatusText 'configuration file refused') && $(says SubState '^running$')"
inside 'systemctl restart speedmimi' 2>/dev/null && { echo "FAULT it started with a fault"; exit 1; }
hold "a start with a fault is not tried again" "$(says ExecMainStatus '^78$') && $(says SubState '^failed$') && $(says NRestarts '^0$')"
inside 'sed -i /^sever/d /etc/speedmimi/config.yaml && systemctl reset-failed speedmimi && systemctl start speedmimi'
inside 'pidof speedmimi >/tmp/before; dpkg --install /p.deb' >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
hold "an upgrade restarts it" "[ \"\$(pidof speedmimi)\" != \"\$(cat /tmp/before)\" ] && $(says SubState '^running$')"
hold "and leaves the configuration" 'grep -q idle_timeout /etc/speedmimi/config.yaml'
hold "the log is rotated" 'curl -sf http://127.0.0.1:8080/ >/dev/null && logrotate --force /etc/logrotate.d/speedmimi &&
    curl -sf http://127.0.0.1:8080/ >/dev/null && sleep 0.2 && [ -s /var/log/speedmimi/access.log ]'

inside 'cp /usr/share/doc/speedmimi/examples/speedmimi.socket /etc/systemd/system/
    mkdir -p /etc/systemd/system/speedmimi.service.d
    printf "[Service]\nWatchdogSec=4\nTimeoutStopSec=2\n" >/etc/systemd/system/speedmimi.service.d/sooner.conf
    systemctl daemon-reload && systemctl stop speedmimi && systemctl start speedmimi.socket' 2>/dev/null
hold "the socket starts it" 'curl -sf http://127.0.0.1:8080/ >/dev/null'
hold "300 requests over three restarts are all answered" '
    (for i in $(seq 300); do curl -s -m 20 -o /dev/null -w "%{http_code}\n" http://127.0.0.1:8080/ || true; done >/tmp/codes) &
    for i in 1 2 3; do systemctl restart speedmimi; done; wait; [ "$(sort /tmp/codes | uniq -c | xargs)" = "300 200" ]'
inside 'main=$(pidof speedmimi)
    for task in /proc/$main/task/*; do grep -q worker-0 $task/comm && worker=$(basename $task); done
    strace -o /dev/null -p $worker 2>/dev/null & tracer=$!
    until grep -q "TracerPid:.*$tracer" /proc/$main/task/$worker/status; do sleep 0.1; done
    kill -STOP $tracer
    for i in $(seq 150); do [ "$(systemctl show speedmimi --property Result --value)" = watchdog ] && break; sleep 0.1; done
    kill -KILL $tracer; wait' 2>/dev/null
hold "a worker that stands still is noticed" 'journalctl --unit speedmimi --output cat | grep -q "stuck: .*worker-0"'
hold "and the service is started anew" "$(says NRestarts '^1$') && $(says SubState '^running$')"
hold "it answers" 'curl -sf http://127.0.0.1:8080/ >/dev/null'

inside 'sed -i "s/^server:/server:\n  shutdown_timeout: 12s/" /etc/speedmimi/config.yaml && systemctl reload speedmimi
    exec 3<>/dev/tcp/127.0.0.1/8080 && systemctl stop speedmimi' 2>/dev/null
hold "a way out longer than TimeoutStopSec= is not cut" "$(says Result '^success$') &&
    journalctl --unit speedmimi --output cat | tail -n 5 | grep -q 'stopped after=[56]\.'"
