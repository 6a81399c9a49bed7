#!/usr/bin/env bash
# Checks chart, alert rules, dashboard, image, compose file and workflows: tests/deploy/run.sh [pytest's arguments].
# Puts what it needs into target/deploy: packages of Python and Node, and Debian's Prometheus if there is none; installs
# nothing. With UPDATE_DOCS=1 it writes the tables of the chart's README. CRD_DIR may name a folder of definitions (CRDs) of
# the operators whose objects the chart renders, as YAML, to check these against them too.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v promtool >/dev/null && [[ ! -x target/deploy/prometheus/usr/bin/promtool ]]; then
    command -v apt-get >/dev/null || { echo "error: promtool and prometheus are missing, and there is no apt-get" >&2; exit 1; }
    mkdir -p target/deploy
    (cd target/deploy && apt-get download prometheus && dpkg-deb --extract prometheus_*.deb prometheus)
fi

venv=target/deploy/venv
if ! cmp -s tests/deploy/requirements.txt "$venv/installed.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement tests/deploy/requirements.txt
    cp tests/deploy/requirements.txt "$venv/installed.txt"
fi

for command in npm openssl; do
    command -v "$command" >/dev/null || { echo "error: $command is missing" >&2; exit 1; }
done

node=target/deploy/node
if ! cmp -s tests/deploy/package-lock.json "$node/installed.json"; then
    mkdir -p "$node"
    cp tests/deploy/package.json tests/deploy/package-lock.json "$node"
    npm ci --prefix "$node" --ignore-scripts --no-audit --no-fund --loglevel=error
    cp tests/deploy/package-lock.json "$node/installed.json"
fi

cargo build --locked
export PATH="$PWD/$venv/bin:$PATH:$PWD/target/deploy/prometheus/usr/bin" PYTHONDONTWRITEBYTECODE=1
export DELETION_WORKER_BINARY="${CARGO_TARGET_DIR:-$PWD/target}/debug/deletion-worker"
exec python -m pytest -rs -p no:cacheprovider tests/deploy "$@"
