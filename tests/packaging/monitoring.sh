#!/usr/bin/env bash
# The rules for Prometheus: that it reads them, and that each alert fires when it should and only then.
#
#   tests/packaging/monitoring.sh
#
# Takes promtool from the path, or out of Debian's package, of which nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
promtool=$(command -v promtool || true)
if [ -z "$promtool" ]; then
    kit=$(realpath -m "${CARGO_TARGET_DIR:-target}/promtool")
    promtool=$kit/usr/bin/promtool
    if [ ! -x "$promtool" ]; then
        mkdir -p "$kit"
        (cd "$kit" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb)
    fi
fi
"$promtool" check rules dist/monitoring/rules.yml
"$promtool" test rules dist/monitoring/rules.test.yml
