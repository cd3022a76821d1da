#!/bin/sh
# Prints the path of a Python that localllama runs on.
#
#   sh tools/find_python.sh          the first of $PYTHON, that of .venv, python3.13 .. python3.10, python3 that is 3.10 or newer
#   sh tools/find_python.sh 3.13     that version exactly
#
# A name on PATH is run, not only looked up: a version switcher puts names there that end in an error.
set -u
exact=${1:-}

accepts='
import sys
wanted = sys.argv[1]
found = "%d.%d" % sys.version_info[:2]
if sys.version_info < (3, 10) or (wanted and wanted != found):
    sys.exit(1)
print(sys.executable)
'

try() {
    "$1" -I -c "$accepts" "$exact" 2>/dev/null
}

if [ -z "$exact" ] && [ -n "${PYTHON:-}" ]; then
    try "$PYTHON" && exit 0
    echo "PYTHON=$PYTHON is not a Python 3.10 or newer that runs here." >&2
    exit 1
fi

# `make PYTHON=... demo` and then `make test`: the same environment, and not another one in its place.
if [ -z "$exact" ]; then
    try "$(dirname "$(dirname "$0")")/.venv/bin/python" && exit 0
fi

for version in ${exact:-3.13 3.12 3.11 3.10}; do
    try "python$version" && exit 0
done
try python3 && exit 0

if command -v pyenv >/dev/null 2>&1; then
    for version in ${exact:-3.13 3.12 3.11 3.10}; do
        for candidate in "$(pyenv root)"/versions/"$version"*/bin/python; do
            try "$candidate" && exit 0
        done
    done
fi
if command -v uv >/dev/null 2>&1; then
    candidate=$(uv python find "${exact:->=3.10}" 2>/dev/null) && try "$candidate" && exit 0
fi

if [ -n "$exact" ]; then
    echo "No Python $exact found: not on PATH, not with pyenv, not with uv." >&2
else
    echo "No Python 3.10 or newer found. Install one (for example: apt install python3 python3-venv, brew install python)," >&2
    echo "or name it: make PYTHON=/path/to/python3.12 ..." >&2
fi
exit 1
