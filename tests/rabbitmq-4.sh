#!/bin/sh
# Runs a program where RabbitMQ 4 is installed, and nothing else is: the tests, by way of `make test BROKER=4`.
#
# usage: rabbitmq-4.sh [PROGRAM [ARGUMENT]...]
#
# PROGRAM runs in a Debian trixie, which has RabbitMQ 4.0, and sees this project and the temporary files at their usual
# paths. It keeps its process ID, network and file descriptors, so whatever it starts and kills behaves as it would
# outside. Without a PROGRAM it only makes that Debian, or says that there is one.
#
# The Debian is made once, with debootstrap, in a minute or two and 500 MB of $RABBITMQ_4_ROOT (default:
# target/rabbitmq-4). It needs root, and a mirror: $DEBIAN_MIRROR, or debootstrap's own choice. Everything is mounted in
# a mount namespace of its own, so nothing is left to unmount, however this ends. To be rid of it, remove the directory.

set -eu

project=$(cd "$(dirname "$0")/.." && pwd -P)
root=${RABBITMQ_4_ROOT:-$project/target/rabbitmq-4}
# procps has `kill`, with which the tests send signals; gcc compiles what one of them puts before a worker's clock.
packages="rabbitmq-server procps gcc libc6-dev"

say() { printf 'rabbitmq-4: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Under a name of its own until it is whole: one that exists can be used.
make_root() {
    [ "$(cat "$root/packages" 2>/dev/null)" != "$packages" ] || return 0
    if ! command -v debootstrap >/dev/null; then
        command -v apt-get >/dev/null || fail "debootstrap is missing, and there is no apt-get to install it"
        apt-get update -q >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends debootstrap >&2
    fi
    started=$(date +%s)
    say "making $root: a Debian trixie with RabbitMQ 4, once"
    partial=$root.partial
    # Of somebody who was killed: there is only one of us at a time.
    rm -rf --one-file-system "$partial"
    trap 'rm -rf --one-file-system "$partial"' EXIT
    trap 'exit 1' HUP INT TERM
    mkdir -p "$partial"
    unshare --mount "$0" --install "$partial" >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        fail "failed to make it; all that was said is in $root.log"
    }
    echo "$packages" >"$partial/packages"
    # One of an earlier version of this script, if any.
    rm -rf --one-file-system "$root"
    mv "$partial" "$root"
    say "made in $(($(date +%s) - started)) s"
}

# Installs into the directory $1; in a mount namespace, which takes debootstrap's mounts along.
install_into() {
    debootstrap --variant=minbase --include=ca-certificates trixie "$1" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    # Nothing may start a service: the tests start their own nodes.
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod 755 "$1/usr/sbin/policy-rc.d"
    mount --rbind /proc "$1/proc"
    # shellcheck disable=SC2086 # several words
    DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get install -y -q --no-install-recommends $packages
    chroot "$1" apt-get clean
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$1/etc/hosts"
}

show() {
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
}

# Shows the program its surroundings, and turns into it.
enter() {
    program=$(readlink -f "$1")
    shift
    for directory in /proc /sys /dev /tmp "${TMPDIR:-/tmp}" "$project"; do
        show "$directory"
    done
    # Built elsewhere.
    [ -e "$root$program" ] || show "$(dirname "$program")"
    # These would lead to another broker.
    unset AMQP_URL RABBITMQ_MANAGEMENT_URL
    export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin RABBITMQ_MAJOR=4
    # The shell in between goes to where we were before it turns into the program.
    # shellcheck disable=SC2016
    exec chroot "$root" sh -c 'cd "$1" && shift && exec "$@"' enter "$PWD" "$program" "$@"
}

case ${1-} in
    --make) make_root ;;
    --install) install_into "$2" ;;
    --enter) shift && enter "$@" ;;
    *)
        [ "$(id -u)" = 0 ] || fail "this needs root: it makes a Debian to run in, and mounts"
        mkdir -p "$(dirname "$root")"
        flock "$root.lock" "$0" --make
        [ $# -gt 0 ] || exit 0
        exec unshare --mount "$0" --enter "$@"
        ;;
esac
