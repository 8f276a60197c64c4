#!/usr/bin/env bash
# Schemathesis against the description that the built program serves: once without a token (the demo), once with one
# and a configuration file that changes are written to; both at once. Fails when it finds anything.
#
#   tests/openapi/run.sh [EXAMPLES [SEED]]    examples for each operation, 8 if not said (half a minute then)
#
# The same requests each time, so that a change is blamed only for what it did; other ones with another SEED, `random` for
# one that nobody chose. SPEEDMIMI is the program (else that of cargo's debug build); what is needed of Python is
# installed below the target directory once. Ports are free ones, files are in a directory of their own; nothing stays.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
speedmimi=$(realpath "${SPEEDMIMI:-$target/debug/speedmimi}")
examples=${1:-8}
seed=(--seed "${2:-1}")
[ "${2:-1}" != random ] || seed=()
# Requests a second. Management allows 50 changes, and 100 more at once: enough for a short run.
pace=49
[ "$examples" -gt 8 ] || pace=54
token=0123456789abcdef
export PYTHONDONTWRITEBYTECODE=1

venv=$target/openapi
../python.sh "$venv" requirements.txt

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

# One run in a directory of its own, which schemathesis leaves things in: against the program started as the words
# before `--` say, with what comes after it for schemathesis. All checks. The pace stays below what management allows:
# 429 would hide other answers.
run() (
    cp schemathesis.toml hooks.py "$dir/$1/"
    cd "$dir/$1"
    shift
    words=()
    while [ "$1" != -- ]; do
        words+=("$1")
        shift
    done
    shift
    : >log # looked into before the program has begun
    "$speedmimi" "${words[@]}" >log 2>&1 &
    proxy=$!
    trap 'kill $proxy 2>/dev/null || true; wait' EXIT
    for _ in $(seq 200); do
        url=$(sed -n 's/.* management="\(http:[^"]*\)".*/\1/p' log)
        [ -z "$url" ] || break
        kill -0 $proxy 2>/dev/null || break
        sleep 0.05
    done
    "$venv/bin/schemathesis" --config-file schemathesis.toml run "${url}api/v1/openapi.json" --no-color --warnings off \
        --max-examples "$examples" --rate-limit "$pace/s" --generation-database none "${seed[@]}" "$@" && kill -0 $proxy || {
        tail -n 20 log
        exit 1
    }
)

mkdir "$dir/open" "$dir/token"
cat >"$dir/token/config.yaml" <<EOF
server:
  host: 127.0.0.1
  port: 0
grpc:
  port: 0
  token: $token
backends:
  # Nobody is there: management doesn't mind.
  demo:
    - {id: fast, host: 127.0.0.1, port: 9}
    - {id: steady, host: 127.0.0.1, port: 9, weight: 10} # the second
    - id: slow
      host: 127.0.0.1
      port: 9
routing:
  everything: {path: /, upstream: demo}
EOF

run token run --config config.yaml -- --header "Authorization: Bearer $token" >"$dir/token.out" 2>&1 &
with_token=$!
failed=
run open demo --port 0 --management 0 -- || failed=yes
wait $with_token || failed=yes
cat "$dir/token.out"
[ -z "$failed" ]
