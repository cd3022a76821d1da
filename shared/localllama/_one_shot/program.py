"""The program of the stand-in, run by path and never imported:

    python -I -S program.py --python-path PATHS [--program PROGRAM [--subcommand NAME]] -m MODEL --host DIRECTORY/x.sock ...

`-I -S` keeps out whatever the user's environment would put into a Python process, so the directories that hold this package
and Jinja2 are named on the command line.
"""  # noqa: D415 - the command line belongs to the first sentence

from __future__ import annotations

import os
import sys

__all__: list[str] = []


def _run(arguments: list[str]) -> int:
    assert arguments[0] == "--python-path"
    sys.path += [path for path in arguments[1].split(os.pathsep) if path not in sys.path]
    from localllama._one_shot.serving import main

    return main(arguments[2:])


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
