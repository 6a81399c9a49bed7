#!/usr/bin/env bash
# Builds what the benchmark needs into target, and runs it: tests/bench/run.sh [run.py's arguments]. Installs nothing; the
# contenders in C and in Node come from Debian's and npm's packages, and are left out where these can't be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=${CARGO_TARGET_DIR:-$PWD/target}/bench
mkdir -p "$tools"

cargo build --release --locked
BENCH_ROLES=$(cargo test --release --locked --test bench --no-run --message-format=json |
    python3 -c 'import json, sys; print([e for e in map(json.loads, sys.stdin) if e.get("target", {}).get("name") == "bench"][-1]["executable"])')
export BENCH_ROLES

native() {
    command -v gcc >/dev/null && command -v apt-get >/dev/null || return 1
    [[ -d $tools/rabbitmq-c ]] || (cd "$tools" && apt-get download librabbitmq-dev librabbitmq4 &&
        for package in librabbitmq*.deb; do dpkg-deb --extract "$package" rabbitmq-c; done) || return 1
    local libraries
    libraries=$(dirname "$(find "$tools/rabbitmq-c" -name librabbitmq.so)")
    gcc -O2 -Wall -Wextra -Werror -I"$tools/rabbitmq-c/usr/include" tests/bench/noop.c -o "$tools/noop" \
        -L"$libraries" -lrabbitmq -Wl,-rpath,"$libraries"
}
native || echo "without the contender in C: it takes gcc, and apt-get to download librabbitmq-dev" >&2

node_batcher() {
    command -v npm >/dev/null || return 1
    cp tests/bench/batcher.mjs tests/bench/package.json "$tools"
    npm install --prefix "$tools" --silent --no-audit --no-fund
}
node_batcher || echo "without the contender in Node: it takes npm" >&2

exec python3 tests/bench/run.py "$@"
