# Runs the command in $@ until it ends, or until standard input does, however its writer dies; exits as it does.
exec 3<&0
"$@" 3<&- </dev/null &
worker=$!
{ read -r _ <&3; kill -TERM "$worker"; } 2>/dev/null &
watcher=$!
exec 3<&-
wait "$worker"
code=$?
kill "$watcher" 2>/dev/null
exit "$code"
