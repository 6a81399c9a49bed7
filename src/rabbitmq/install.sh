# Installs RabbitMQ from the distribution, without the service that the package would start.
#
# usage: sh -c "$this" install POLICY
#
# POLICY is /usr/sbin/policy-rc.d: what it says decides whether packages may start services (Debian's invoke-rc.d).
# One that is there already is the administrator's, and stays.

set -e
policy=$1

if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

apt-get update -q >&2
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends rabbitmq-server >&2
