#!/usr/bin/env bash
# What the built program offers over TLS, looked at by sslyze and held against Mozilla's intermediate profile; then
# resumption by openssl, in both versions. Fails when something is offered that should not be.
#
#   tests/sslyze/run.sh
#
# SPEEDMIMI is the program (else that of cargo's debug build); what is needed of Python is installed below the target
# directory once. The port is a free one, files are in a directory of their own; nothing stays.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
speedmimi=$(realpath "${SPEEDMIMI:-$target/debug/speedmimi}")
venv=$target/sslyze
../python.sh "$venv" requirements.txt

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
cat >"$dir/config.yaml" <<EOF
server: {host: 127.0.0.1, port: 0}
ssl: {enabled: true, cert_file: cert.pem, key_file: key.pem}
grpc: {enabled: false}
routing: {all: {respond: {status: 200, body: here}}}
EOF
cd "$dir"
: >log # looked into before the program has begun
"$speedmimi" run --config config.yaml >log 2>&1 &
proxy=$!
for _ in $(seq 200); do
    port=$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\).*/\1/p' log | head -n 1)
    [ -z "$port" ] || break
    kill -0 $proxy 2>/dev/null || break
    sleep 0.05
done
[ -n "$port" ] || { cat log; exit 1; }

# Old versions, suites, curves, compression, renegotiation, Heartbleed, ROBOT, CCS injection. That nobody known issued
# the certificate is no concern of ours.
"$venv/bin/sslyze" --mozilla_config=disable --json_out=found.json --sslv2 --sslv3 --tlsv1 --tlsv1_1 --tlsv1_2 --tlsv1_3 \
    --compression --reneg --heartbleed --robot --openssl_ccs --fallback --resum --elliptic_curves --early_data --ems \
    "localhost:$port{127.0.0.1}" >sslyze.out || { cat sslyze.out log; exit 1; }
"$venv/bin/python" - <<'EOF'
import json

found = json.load(open("found.json"))["server_scan_results"][0]["scan_result"]
of = lambda name: found[name]["result"]
accepted = lambda name: {suite["cipher_suite"]["name"] for suite in of(name + "_cipher_suites")["accepted_cipher_suites"]}
faults = []


def hold(what, is_so):
    print(("ok    " if is_so else "FAULT ") + what)
    if not is_so:
        faults.append(what)


for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
    hold(f"{old}: nothing", not accepted(old))
# https://wiki.mozilla.org/Security/Server_Side_TLS, intermediate; a key that is ECDSA has no suites of RSA.
intermediate = {
    "tls_1_2": {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"},
    "tls_1_3": {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
}
for version, suites in intermediate.items():
    hold(f"{version}: {', '.join(sorted(accepted(version)))}", accepted(version) == suites)
curves = {curve["name"].replace("prime256v1", "secp256r1") for curve in of("elliptic_curves")["supported_curves"]}
hold(f"groups: {', '.join(sorted(curves))}", curves == {"X25519", "secp256r1", "secp384r1"})
hold("no compression", not of("tls_compression")["supports_compression"])
hold("no renegotiation by clients", not of("session_renegotiation")["is_vulnerable_to_client_renegotiation_dos"])
hold("no Heartbleed", not of("heartbleed")["is_vulnerable_to_heartbleed"])
hold("no CCS injection", not of("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"])
hold("no ROBOT", of("robot")["robot_result"].startswith("NOT_VULNERABLE"))
hold("no early data", not of("tls_1_3_early_data")["supports_early_data"])
hold("extended master secret", of("tls_extended_master_secret")["supports_ems_extension"])
raise SystemExit(bool(faults))
EOF

# A session is taken up again, by ticket.
for version in tls1_2 tls1_3; do
    # The ticket of TLS 1.3 comes with the answer.
    ask() { printf 'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' |
        openssl s_client -connect "127.0.0.1:$port" -servername localhost "-$version" -ign_eof "$@" 2>/dev/null; }
    ask -sess_out "$version.pem" | grep -q '^here' || { echo "no answer over $version"; exit 1; }
    ask -sess_in "$version.pem" | grep -q '^Reused, ' || { echo "not taken up again: $version"; exit 1; }
    echo "ok    taken up again: $version"
done
kill -0 $proxy
