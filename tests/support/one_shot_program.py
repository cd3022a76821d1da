"""A stand-in for `llama-completion` that misbehaves to order: a real program, without a model.

It lists the flags of the real one, and answers the trial that every start makes; what it does with a real prompt is the
body, Python code with `prompt`, `arguments`, `out` (bytes) and `os`, `sys`, `time`, `signal` at hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from localllama._runtime import resolve

REAL_PROGRAMS = ("llama-completion", "llama-cli", "old llama-cli", "llama completion")
"""Those of llama.cpp, as `leave_only` names them."""
HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-m,    --model FNAME                    model path to load
-c,    --ctx-size N                     size of the prompt context
-t,    --threads N                      number of CPU threads
-b,    --batch-size N                   logical maximum batch size
-n,    --predict, --n-predict N         number of tokens to predict
-f,    --file FNAME                     a file containing the prompt
-e,    --escape, --no-escape            whether to process escapes
-s,    --seed SEED                      RNG seed
--temp N                                temperature
--grammar-file FNAME                    file to read grammar from
-jf,   --json-schema-file FILE          File containing a JSON schema
--prompt-cache FNAME                    file to cache prompt state
-cnv,  --conversation, -no-cnv          whether to run in conversation mode
--display-prompt, --no-display-prompt   whether to print prompt at generation
--simple-io                             use basic IO
--warmup, --no-warmup                   whether to perform warmup
"""
_TEXT = """#!{python} -S
import os, signal, sys, time
arguments = sys.argv[1:]
out = sys.stdout.buffer
if "--help" in arguments:
    print({help!r})
    raise SystemExit
if "--version" in arguments:
    print("version: 1 (build 11434, commit abcdef)", file=sys.stderr)
    raise SystemExit
prompt = open(arguments[arguments.index("-f") + 1], encoding="utf-8", newline="").read().removesuffix("\\n")
is_trial = prompt == "Hello"
if is_trial and not {fails_trial!r}:
    out.write(b"x\\n\\n")
    raise SystemExit
{body}
"""


def make_one_shot_program(
    directory: Path, body: str, *, name: str = "llama-completion", fails_trial: bool = False
) -> Path:
    """Write the program and return its path.

    Args:
        directory: Where it goes.
        body: What it does with a prompt.
        name: Its name.
        fails_trial: It does so in the trial, too.
    """
    path = directory / name
    text = _TEXT.replace("\\\\n", "\\n")
    path.write_text(text.format(python=sys.executable, help=HELP, fails_trial=fails_trial, body=body))
    path.chmod(0o755)
    return path


def leave_only(name: str, llama_bin: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a real program the only one of llama.cpp's on this machine.

    Args:
        name: One of `REAL_PROGRAMS`. What was `llama-cli` before b7348 is `llama-completion` now; the multi-call program
            is a script that calls the others.
        llama_bin: Where the compiled ones are.
        directory: All of PATH.
        monkeypatch: Hides everything else until the test ends.
    """
    if name == "llama completion":
        calls = {"serve": "llama-server", "completion": "llama-completion"}
        cases = "".join(f'{call}) shift; exec {llama_bin / program} "$@";;\n' for call, program in calls.items())
        (directory / "llama").write_text(f'#!/bin/sh\ncase "$1" in\n{cases}esac\nexit 1\n')
        (directory / "llama").chmod(0o755)
    else:
        source = "llama-completion" if name.startswith("old") else name
        (directory / name.rpartition(" ")[2]).symlink_to(llama_bin / source)
    monkeypatch.setattr(resolve, "_PREFIXES", ())
    monkeypatch.setattr(resolve, "_library_directory", lambda: None)
    monkeypatch.setenv("PATH", str(directory))
