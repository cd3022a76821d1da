"""The stand-in process from its start to its end: try the program, serve, and go when the owner goes."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import NoReturn

from localllama._runtime.exit_reason import exit_words
from localllama._runtime.one_shot_flags import form_of_help
from localllama._runtime.probe import listed_flags
from localllama.errors import LocalLlamaError

from .answering import MOST_RUNS, ProgramAnswering
from .endpoints import error_object
from .job import Job
from .listening import StandInServer, listen
from .options import Options, read_options
from .program_runs import Program, ProgramError
from .spawning import die_with_parent
from .templates import ChatTemplate, TemplateRefusalError
from .vocabulary import read_vocabulary

__all__ = ["main"]

_STDIN = 0
_TRIAL = "Hello"
_UNCOUNTED_RUNS = 3  # whole to the end and without counters: it prints none; each run loads the model


def main(arguments: list[str]) -> int:
    """Serve until killed; the exit code if that fails."""
    os.umask(0o077)
    _take_the_group_along()
    _watch_lifeline()
    options = read_options(arguments)
    server = listen(options.host, options.port, options.api_key)
    threading.Thread(target=server.serve_forever, name="requests", daemon=True).start()
    try:
        _prepare(server, options)
    except (TemplateRefusalError, LocalLlamaError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except ProgramError as error:
        return _end_as(error)
    threading.Event().wait()
    return 0


def _prepare(server: StandInServer, options: Options) -> None:
    """Find out that the program works with this model, which nothing but running it can tell, and begin to answer."""
    if not options.command:
        from .mock import MockAnswering

        server.answering = MockAnswering(options)
        return
    flags = listed_flags(options.command)
    form = form_of_help(" ".join([Path(options.command[0]).name, *options.command[1:]]).lower(), flags)
    if form is None:
        raise ProgramError("is no program that answers once", exit_code=1, stderr="error: invalid argument: --help\n")
    settings = ("--model" if "--model" in flags else "-m", options.model, *_window(flags, options), *options.passed_on)
    program = Program(options.command, form, flags, settings, options.directory)
    command = " ".join(options.command)
    server.describe = lambda error: error_object(
        error, command, lambda code, number: f"{command} {exit_words(code, number)}"
    )
    _try_out(program)
    vocabulary = read_vocabulary(options.model)
    template = options.template if options.template is not None else vocabulary.chat_template
    server.answering = ProgramAnswering(
        program,
        ChatTemplate(template, vocabulary, options.variables),
        model=options.alias,
        build=f"one-shot {form}",
        n_ctx=options.n_ctx,
        parallel=options.parallel,
        adds_bos=vocabulary.adds_bos,
    )


def _try_out(program: Program) -> None:
    """Run it with the model, and find out what it says behind an answer; some of that may be lost in a single run."""
    n_predict = next(flag for flag in ("--predict", "--n-predict", "-n") if flag in program.flags)
    n_uncounted = 0
    for n_left in reversed(range(MOST_RUNS)):
        run = program.run(Job(_TRIAL, (n_predict, "1")))
        try:
            for _ in run.texts():
                pass
            outcome = run.outcome()
            program.tells_counters = outcome.counters.prompt_tokens is not None
            program.tells_end |= outcome.has_end
            n_uncounted += outcome.has_end and not program.tells_counters
        except ProgramError as error:
            if not n_left or not error.is_unexplained:
                raise
        finally:
            run.stop()
        if program.tells_counters or program.is_chat_client or n_uncounted == _UNCOUNTED_RUNS:
            return


def _window(flags: frozenset[str], options: Options) -> tuple[str, str]:
    return ("--ctx-size" if "--ctx-size" in flags else "-c", str(options.n_ctx))


def _end_as(error: ProgramError) -> int:
    """End as the program did, so that whoever started us judges it as a server that ended like that."""
    # What it said, and nothing else; only of one that never ran there is nothing but our own words.
    sys.stderr.write(error.stderr or (f"error: {error}\n" if error.reason in ("missing", "permission") else ""))
    sys.stderr.flush()
    if error.signal_number is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(error.signal_number, signal.SIG_DFL) if error.signal_number != signal.SIGKILL else None
        os.kill(os.getpid(), error.signal_number)
    return error.exit_code or 1


def _take_the_group_along() -> None:
    """Let the death of the supervisor end our whole process group.

    By the supervisor's own arrangement the kernel would kill this process alone. What a program started, which a wrapper
    script is enough for, would live on where owner and supervisor were killed together.
    """
    if sys.platform != "linux" or not _is_leader():
        return
    signal.signal(signal.SIGTERM, lambda *_: _end_group())
    die_with_parent(signal.SIGTERM)


def _is_leader() -> bool:
    """Whether the process group is ours, so that all in it may be killed."""
    return os.name == "posix" and os.getpgrp() == os.getpid()


def _end_group() -> NoReturn:
    if _is_leader():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def _watch_lifeline() -> None:
    """End this process when standard input, if it is a pipe or a socket, reaches its end: the owner is gone then.

    The programs that run are of our process group, and that ends with us.
    """
    mode = os.fstat(_STDIN).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        threading.Thread(target=_exit_at_end_of_input, name="lifeline", daemon=True).start()


def _exit_at_end_of_input() -> NoReturn:
    try:
        while os.read(_STDIN, 4096):
            pass
    except OSError:
        pass
    _end_group()
