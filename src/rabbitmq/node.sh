# Owns a private RabbitMQ node for the process at the other end of stdin.
#
# usage: sh -c "$this" lifeline DIRECTORY SERVER EPMD_PORT
#
# Creates DIRECTORY and says "ready", then obeys one command a line:
#
#   start    runs SERVER; answers "started PID", and "exited STATUS" once it has ended, whatever the cause
#   SIGNAL   sends it to the running node: TERM, KILL
#
# At the end of stdin, which comes however the other end dies, the node is killed and DIRECTORY removed.

directory=$1
server=$2
epmd_port=$3

# A ^C at the terminal or a closed session must not end this before its work is done.
trap '' HUP INT PIPE TERM

exec 3<&0 </dev/null
mkdir -m 700 "$directory" || exit 1
# Without a port mapper of its own a node would use the machine's, or leave one behind.
epmd -port "$epmd_port" -address 127.0.0.1 >"$directory/epmd.log" 2>&1 3<&- &
epmd=$!
echo ready

while read -r command <&3; do
    [ "$command" = start ] || continue
    (exec "$server") >>"$directory/start.log" 2>&1 3<&- &
    node=$!
    echo "started $node"
    (
        while read -r signal <&3; do kill -s "$signal" "$node"; done
        kill -s KILL "$node"
    ) 2>/dev/null &
    reader=$!
    wait "$node"
    status=$?
    kill -s KILL "$reader"
    wait "$reader"
    echo "exited $status"
done 2>/dev/null

kill -s KILL "$epmd" 2>/dev/null
rm -rf "$directory"
