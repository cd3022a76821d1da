"""A program that asks a llama.cpp program for its flags, and is killed while it waits for the answer.

python asking.py PROGRAM
"""

from __future__ import annotations

import sys

from starting import hear_signals, token_into_environment

from localllama._runtime.probe import supported_flags
from localllama._runtime.runtime import Runtime

hear_signals()
token_into_environment()
supported_flags(Runtime("llama-server", (sys.argv[1],), sys.argv[1]))
