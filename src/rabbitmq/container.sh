# Owns a container for the process at the other end of stdin.
#
# usage: sh -c "$this" lifeline DOCKER NAME IMAGE
#
# Says "running", or what Docker complains of; removes the container at the end of stdin, which comes however the
# other end dies.

docker=$1
name=$2
image=$3

trap '' HUP INT PIPE TERM

exec 3<&0 </dev/null
if complaint=$("$docker" run --rm --detach --name "$name" --publish 127.0.0.1::5672 --publish 127.0.0.1::15672 \
    --env RABBITMQ_DEFAULT_USER --env RABBITMQ_DEFAULT_PASS "$image" 2>&1); then
    echo running
    while read -r _ <&3; do :; done
else
    echo "$complaint" | tail -n 1
fi
"$docker" rm --force --volumes "$name" >/dev/null 2>&1
