#!/usr/bin/env bash
# Dockerfile and compose file, as far as can be told without Docker: hadolint's rules, the schema of Compose, and the
# configuration that the image has.
#
#   tests/packaging/containers.sh
#
# SPEEDMIMI is the program (else that of cargo's debug build).
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
speedmimi=$(realpath "${SPEEDMIMI:-$target/debug/speedmimi}")
tests/python.sh "$target/containers" tests/packaging/requirements.txt
"$target/containers/bin/hadolint" Dockerfile
"$target/containers/bin/check-jsonschema" --builtin-schema vendor.compose-spec compose.yaml
"$target/containers/bin/yamllint" -s -d '{extends: relaxed, rules: {line-length: {max: 160}}}' compose.yaml dist
"$speedmimi" check --config dist/container.yaml
"$speedmimi" check --config dist/config.yaml
# What the build needs is among what is sent to it.
for path in Cargo.toml Cargo.lock build.rs src bench proto configs dist/container.yaml; do
    [ -e "$path" ] && grep -qx "!$path" .dockerignore || { echo "missing in .dockerignore: !$path"; exit 1; }
done
