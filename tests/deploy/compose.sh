#!/usr/bin/env bash
# Runs docker-compose.yml for real, as it is: needs Docker and python3. With STANDINS=1, where no registry of images is
# reached, the images are made here first: see standins.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."

docker info >/dev/null 2>&1 || { echo "error: there is no Docker to talk to" >&2; exit 1; }
if [[ -n ${STANDINS:-} ]]; then
    tests/deploy/standins.sh
    # With what is there: Compose itself builds with buildx, which may not be.
    docker build --tag "$(sed -n 's/^  image: .*:-\(.*\)}$/\1/p' docker-compose.yml)" .
    exec python3 tests/deploy/compose_live.py --no-build
fi
exec python3 tests/deploy/compose_live.py
