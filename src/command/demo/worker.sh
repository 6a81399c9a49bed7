# Owns a worker for the process at the other end of stdin.
#
# usage: sh -c "$this" lifeline PROGRAM
#
# Runs PROGRAM; each line of stdin names a signal to send it. Its log goes to stdout, and at last "exited STATUS". At
# the end of stdin, which comes however the other end dies, it is killed.

program=$1

# A ^C at the terminal or a closed session must not end this before its work is done.
trap '' HUP INT PIPE TERM

exec 3<&0 </dev/null
"$program" run 2>&1 3<&- &
worker=$!
(
    while read -r signal <&3; do kill -s "$signal" "$worker"; done
    kill -s KILL "$worker"
) >/dev/null 2>&1 &
reader=$!
wait "$worker"
status=$?
kill -s KILL "$reader"
wait "$reader"
echo "exited $status"
