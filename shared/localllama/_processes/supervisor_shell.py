"""The supervisor as a shell program: for hosts whose `sys.executable` is no Python (frozen programs, uWSGI).

Weaker than `supervisor`: it keeps no log, and a copy of the lifeline in a process that outlives the owner blinds it.
It speaks the same words on the status pipe, which is its stdout; the lifeline is its stdin. (dash reads only one-digit
descriptors in redirections, so no other numbers can be used.) Its stderr takes what the server prints: a file, if its owner
asked for one.

The session is the shell's own, and all its processes are one group, whose number is the shell's pid: `kill -9 -$$` ends
the server, what it started, the reader and the shell. The reader starts before the server, so that there is no moment
at which the server runs and nobody listens. `read` returns at the end of the lifeline and not before: nobody writes.
"""

SHELL_PROGRAM = r"""
directory=$1; shift
trap '' HUP INT QUIT PIPE TERM
exec 3<&0 4>&1 0</dev/null 1>&2
{ read -r _ <&3; rm -rf -- ${directory:+"$directory"}; kill -9 -$$; } 4>&- &
"$@" <&3 3<&- 4>&- 2>&1 &
server=$!
echo "PID $server -" >&4
wait "$server"
code=$?
rm -rf -- ${directory:+"$directory"}
if [ "$code" -gt 128 ]; then echo "EXIT signal $((code - 128))" >&4; else echo "EXIT code $code" >&4; fi
kill -9 -$$
"""
