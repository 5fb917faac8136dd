# Runs a program for as long as standard input stays open: supervise LOG PROGRAM [ARGUMENT...]
# Cykl holds the only write end of the pipe on standard input and never writes to it. However Cykl ends, kill -9 included,
# the pipe reaches its end and the program is asked to stop. LOG takes the program's output; empty: standard error.
# The program's process id is printed once on standard output, its exit status becomes the status of this script.
umask 077
log=$1
shift
exec 3<&0 </dev/null
if [ -n "$log" ]; then exec 2>"$log"; fi

"$@" 3<&- >&2 &
program=$!

# Only the end of the pipe, the end of the program or SIGKILL ends the supervisor.
trap '' HUP INT QUIT TERM

# TERM ends a program that has not yet installed its handlers (a shell starts background programs with INT ignored);
# INT then turns PostgreSQL's shutdown into a fast one, which does not wait for clients to leave.
# The watcher stays after that, so that its process id cannot belong to another process when it is ended below.
{
    read -r line
    kill -TERM "$program"
    kill -INT "$program"
    exec sleep 3600
} <&3 >&2 &
watcher=$!

exec 3<&-
echo "$program"
exec >&2

wait "$program"
status=$?
{
    kill -KILL "$watcher"
    wait "$watcher"
} 2>/dev/null
exit "$status"
