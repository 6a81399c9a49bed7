#!/usr/bin/env bash
# Makes images for a machine that reaches no registry of images: tests/deploy/standins.sh [DIRECTORY]
#
# They bear the names that docker-compose.yml and the Dockerfile use, and hold what Debian has: RabbitMQ 4.0 and Prometheus,
# the real ones though not the vendors' builds; for rust, a C compiler and this machine's toolchain with what its cargo has
# downloaded; for Grafana, grafana_standin.py, which is no Grafana. An image that is there already is left as it is.
# Needs root, debootstrap, a Debian mirror ($DEBIAN_MIRROR, or debootstrap's own choice), and 3 GB in DIRECTORY meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=${1:-target/deploy/standins}

# missing NAME: prints the whole name of the image that begins so, unless there is one.
missing() {
    local image
    image=$(sed -nE "s|^.*(image: \|BUILD_IMAGE=)($1:.*)$|\2|p" Dockerfile docker-compose.yml)
    docker image inspect "$image" >/dev/null 2>&1 || echo "$image"
}

rabbitmq=$(missing rabbitmq) prometheus=$(missing prom/prometheus) grafana=$(missing grafana/grafana) rust=$(missing rust)
[[ -n "$rabbitmq$prometheus$grafana$rust" ]] || exit 0

root=$work/root
trap 'rm -rf --one-file-system "$work"' EXIT
rm -rf --one-file-system "$work"
mkdir -p "$work"
debootstrap --variant=minbase --include=ca-certificates trixie "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$work/log" 2>&1
# Nothing may start a service.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y --no-install-recommends \
    busybox-static gcc libc6-dev prometheus python3-minimal python3-yaml rabbitmq-server >>"$work/log" 2>&1
rm -rf "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/var/lib/rabbitmq/.erlang.cookie
ln -s busybox "$root/usr/bin/wget"
printf '[rabbitmq_management,rabbitmq_prometheus].\n' >"$root/etc/rabbitmq/enabled_plugins"
mkdir "$root/prometheus"
chown 65534:65534 "$root/prometheus"
cp tests/deploy/grafana_standin.py "$root/grafana_standin.py"

# import NAME CHANGE...: an image of the root, if NAME is given.
import() {
    local image=$1 changes=()
    shift
    [[ -n $image ]] || return 0
    for change in "$@"; do changes+=(--change "$change"); done
    tar --create --directory "$root" . | docker import "${changes[@]}" --change 'LABEL stand-in=true' - "$image" >/dev/null
    echo "made a stand-in for $image"
}

# Not the command in the PATH: it passes no signals on.
import "$rabbitmq" 'USER rabbitmq' 'ENV HOME=/var/lib/rabbitmq' 'ENV RABBITMQ_LOGS=-' 'CMD ["/usr/lib/rabbitmq/bin/rabbitmq-server"]'
import "$prometheus" 'USER 65534:65534' 'ENTRYPOINT ["/usr/bin/prometheus"]'
import "$grafana" 'USER 65534:65534' 'ENTRYPOINT ["/usr/bin/python3", "/grafana_standin.py"]'
if [[ -n $rust ]]; then
    mkdir -p "$root/usr/local/cargo"
    cp -a "$(rustc --print sysroot)" "$root/usr/local/rust"
    rm -rf "$root/usr/local/rust/share"
    cp -a "${CARGO_HOME:-$HOME/.cargo}/registry" "$root/usr/local/cargo/"
    import "$rust" 'ENV CARGO_HOME=/usr/local/cargo' 'ENV CARGO_NET_OFFLINE=true' \
        'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
fi
