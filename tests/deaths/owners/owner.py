"""A program that owns a server and then dies, or is killed, in the way that its first argument names.

    python owner.py SCENARIO MODE [TTY]

It prints READY when the server serves. A scenario that does not end by itself waits to be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import fcntl
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from starting import hear_signals, say, start, stop, token_into_environment

MODE = sys.argv[2] if len(sys.argv) > 2 else "standin"
kept: list[Any] = []


def hold() -> NoReturn:
    """Be killed; or end, if the test itself was killed and nobody will do it."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def ready_in_main() -> None:
    kept.append(start(MODE))
    say("READY")


def then(die: Callable[[], object]) -> Callable[[], None]:
    def scenario() -> None:
        ready_in_main()
        die()

    return scenario


def raise_an_exception() -> NoReturn:
    raise ValueError("nobody catches this")


def crash() -> None:
    ctypes.string_at(0)


def become_another_program() -> None:
    os.execve("/bin/sleep", ["sleep", "20"], {})


def survive_interrupts() -> None:
    ready_in_main()
    while True:
        try:
            hold()
        except KeyboardInterrupt:
            say("INTERRUPTED")


# -- where it is started from ---------------------------------------------------------------------------------------


def from_thread_that_ends() -> None:
    thread = threading.Thread(target=lambda: kept.append(start(MODE)))
    thread.start()
    thread.join()
    say("READY")
    hold()


def from_thread_that_ends_later() -> None:
    # PDEATHSIG fires at the end of the thread: a thread that ends at once may end before it is even set.
    def work() -> None:
        kept.append(start(MODE))
        time.sleep(0.3)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    say("READY")
    hold()


def from_thread_pool() -> None:
    with ThreadPoolExecutor(1) as pool:
        kept.append(pool.submit(start, MODE).result())
        time.sleep(0.3)
    say("READY")
    hold()


def from_asyncio_executor() -> None:
    async def main() -> None:
        kept.append(await asyncio.to_thread(start, MODE))
        await asyncio.sleep(0.3)

    asyncio.run(main())
    say("READY")
    hold()


def from_daemon_thread_at_finalization() -> None:
    is_ready = threading.Event()

    def work() -> None:
        started = start(MODE)
        is_ready.set()
        while started is not None:
            time.sleep(0.001)

    threading.Thread(target=work, daemon=True).start()
    is_ready.wait(20)
    say("READY")


def from_forked_child() -> None:
    """The child is the owner; its pid is told, so that it alone is killed."""
    child = os.fork()
    if child == 0:
        ready_in_main()
        hold()
    say(f"OWNER {child}")
    os.waitpid(child, 0)
    say("OWNER-DEAD")
    hold()


def from_forked_child_after_a_start() -> None:
    """Parent and child both own one; the child's death must leave the parent's alone."""
    ready_in_main()
    child = os.fork()
    if child == 0:
        kept.append(start(MODE))
        say("CHILD-READY")
        hold()
    say(f"OWNER {child}")
    os.waitpid(child, 0)
    say("OWNER-DEAD")
    hold()


def _worker(is_ended: bool) -> None:
    token_into_environment()
    started = start(MODE)
    say(f"OWNER {os.getpid()}")
    say("READY")
    if not is_ended:
        hold()
    kept.append(started)


def from_multiprocessing(method: str, *, is_ended: bool) -> Callable[[], None]:
    def scenario() -> None:
        # The fork server and the resource tracker must not be taken for servers.
        del os.environ["LOCALLLAMA_TEST_TOKEN"]
        process = multiprocessing.get_context(method).Process(target=_worker, args=(is_ended,))
        process.start()
        process.join()
        say("OWNER-DEAD")
        hold()

    return scenario


# -- who else holds descriptors -------------------------------------------------------------------------------------


def with_forked_child() -> None:
    ready_in_main()
    if os.fork() == 0:
        os.close(1)
        time.sleep(20)
        os._exit(0)
    hold()


def with_c_forked_child() -> None:
    """A fork that no Python hook sees."""
    ready_in_main()
    if ctypes.CDLL(None).fork() == 0:
        os.close(1)
        time.sleep(20)
        os._exit(0)
    say("FORKED")
    hold()


def with_inheriting_child() -> None:
    ready_in_main()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        with contextlib.suppress(OSError):
            if int(name) > 2:
                os.set_inheritable(int(name), True)
    kept.append(subprocess.Popen(["/bin/sleep", "20"], close_fds=False, env={}, stdout=subprocess.DEVNULL))
    say("FORKED")
    hold()


def _idle_worker() -> None:
    os.close(1)
    time.sleep(20)


def with_multiprocessing_worker(method: str) -> Callable[[], None]:
    def scenario() -> None:
        if method != "fork":
            # An exec'ed worker would carry the token, and be taken for a server.
            del os.environ["LOCALLLAMA_TEST_TOKEN"]
            multiprocessing.get_context(method).Process(target=_idle_worker).start()
            token_into_environment()
        ready_in_main()
        if method == "fork":
            multiprocessing.get_context(method).Process(target=_idle_worker).start()
        say("FORKED")
        hold()

    return scenario


def forked_child_exits_normally() -> None:
    """A child's `sys.exit`, with all its exit functions and finalizers, must not stop the parent's server."""
    ready_in_main()
    child = os.fork()
    if child == 0:
        for started in kept:
            with contextlib.suppress(Exception):
                stop(started)
        kept.clear()
        sys.exit(0)
    os.waitpid(child, 0)
    say("CHILD-EXITED")
    hold()


def stop_while_c_forked_child_lives() -> None:
    ready_in_main()
    if ctypes.CDLL(None).fork() == 0:
        os.close(1)
        time.sleep(20)
        os._exit(0)
    begin = time.monotonic()
    stop(kept.pop())
    say(f"STOPPED {time.monotonic() - begin:.3f}")
    hold()


# -- hosts with habits ----------------------------------------------------------------------------------------------


def sigchld_ignored() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    ready_in_main()
    hold()


def signals_blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD})
    ready_in_main()
    hold()


def signals_ignored() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCONT):
        signal.signal(number, signal.SIG_IGN)
    ready_in_main()
    hold()


def standard_streams_closed() -> None:
    out = os.dup(1)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    kept.append(start(MODE))
    os.write(out, b"READY\n")
    hold()


def reaps_all_children() -> None:
    """As gunicorn's arbiter does."""
    ready_in_main()
    while True:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)


def notices_the_servers_death() -> None:
    """Stays alive; tells how the server ended."""
    ready_in_main()
    outcome = kept[0].wait_for_exit(20)
    say(f"EXIT {outcome.exit_code} {outcome.signal_number} {outcome.is_supervisor_lost}")
    hold()


# -- during the start -----------------------------------------------------------------------------------------------


def starting() -> None:
    import localllama  # noqa: F401 - its import is not what this is about

    say("STARTING")
    ready_in_main()
    hold()


def interrupted_start() -> None:
    """Start and stop again and again until a KeyboardInterrupt arrives; then live on and own nothing."""
    from pydantic_core import PydanticSerializationError

    import localllama  # noqa: F401

    # Pydantic makes its own error of an interrupt that comes while it serializes.
    with contextlib.suppress(KeyboardInterrupt, PydanticSerializationError):
        say("STARTING")
        while True:
            stop(start(MODE))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    say("INTERRUPTED")
    hold()


# -- other ways to watch the owner ----------------------------------------------------------------------------------


def without_pidfd() -> None:
    del os.pidfd_open
    ready_in_main()
    hold()


def without_pidfd_and_leaked() -> None:
    """The lifeline cannot end and there is no pidfd: only the parent's pid tells."""
    del os.pidfd_open
    with_c_forked_child()


def with_shell_supervisor() -> None:
    sys.executable = "/usr/bin/some-host"
    ready_in_main()
    hold()


def with_kqueue_supervisor() -> None:
    from pathlib import Path

    from localllama._processes import launch_posix

    imitation = Path(__file__).with_name("kqueue_imitation.py").read_text(encoding="utf-8")
    launch_posix.supervisor_program = lambda _: "\n".join(
        [imitation, *launch_posix.program_parts("supervisor_macos"), "main(OwnerWatch)"]
    )
    ready_in_main()
    hold()


SCENARIOS: dict[str, Callable[[], None]] = {
    "normal_exit": then(lambda: None),
    "exception": then(raise_an_exception),
    "sys_exit": then(lambda: sys.exit(3)),
    "os_exit": then(lambda: os._exit(3)),
    "crash": then(crash),
    "abort": then(os.abort),
    "execv": then(become_another_program),
    "hold": then(hold),
}
SCENARIOS.update(
    {
        scenario.__name__: scenario
        for scenario in (
            survive_interrupts,
            from_thread_that_ends,
            from_thread_that_ends_later,
            from_thread_pool,
            from_asyncio_executor,
            from_daemon_thread_at_finalization,
            from_forked_child,
            from_forked_child_after_a_start,
            with_forked_child,
            with_c_forked_child,
            with_inheriting_child,
            forked_child_exits_normally,
            stop_while_c_forked_child_lives,
            sigchld_ignored,
            signals_blocked,
            signals_ignored,
            standard_streams_closed,
            reaps_all_children,
            notices_the_servers_death,
            starting,
            interrupted_start,
            without_pidfd,
            without_pidfd_and_leaked,
            with_shell_supervisor,
            with_kqueue_supervisor,
        )
    }
)
for _method in ("fork", "spawn", "forkserver"):
    SCENARIOS[f"from_{_method}_worker"] = from_multiprocessing(_method, is_ended=False)
    SCENARIOS[f"from_{_method}_worker_that_ends"] = from_multiprocessing(_method, is_ended=True)
    SCENARIOS[f"with_{_method}_worker"] = with_multiprocessing_worker(_method)


def main() -> None:
    hear_signals()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    if len(sys.argv) > 3:
        terminal = os.open(sys.argv[3], os.O_RDWR)
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    token_into_environment()
    SCENARIOS[sys.argv[1]]()


if __name__ == "__main__":
    main()
