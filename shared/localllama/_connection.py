"""What the two clients share: settings, the lease on a server, the way from one to the other. No request is made here."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ._frames import let_go
from ._start_bar import shown_start
from .errors import ClientClosedError, ConfigurationError, LocalLlamaError
from .settings import PROJECTOR_OFF, SamplingSettings, ServerSettings, TimeoutSettings
from .types import Endpoint, ModelInfo, StartProgress

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from ._server.readiness import HealthProbe
    from ._server.registry import Lease
    from ._server.shared_server import SharedServer
    from ._server.start import StartedServer

__all__ = ["Connection", "in_daemon_thread"]

T = TypeVar("T")
_MOCK_N_CTX = 4096

Limits = tuple[TimeoutSettings, float | None]
"""The time limits of a request, and when the call that it is a part of began; None: with this request."""


class Connection:
    """One client's way to its server: our own child through a lease, or the one at `base_url`.

    Args:
        settings: How to serve, or where the server is.
        sampling: Defaults of each call.
        timeouts: Limits of each call.
        max_retries: How often a call is tried again where that is safe.
    """

    def __init__(
        self, settings: ServerSettings, sampling: SamplingSettings, timeouts: TimeoutSettings, max_retries: int
    ) -> None:
        if max_retries < 0:
            raise ConfigurationError(f"max_retries={max_retries}: give 0 or more")
        self.settings = settings
        self.sampling = sampling
        self.timeouts = timeouts
        self.max_retries = max_retries
        # Taken here and not at the first call: a framework that makes an object for each call, beside one that it keeps,
        # would otherwise start and stop the server for each.
        self._lease: Lease | None = _new_lease(settings) if settings.base_url is None else None
        self._is_closed = False
        self._remote_notes: dict[str, Any] = {}
        self.known_model: ModelInfo | None = None

    # -- the model --------------------------------------------------------------------------------------------------

    def model_info(self) -> ModelInfo | None:
        """What is known without a server, a download or a process; None if the file is not on this machine yet."""
        from ._models.store import locate_model

        if self.settings.model is None or self.settings.base_url is not None:
            return None
        path = locate_model(self.settings.model)
        self.known_model = None if path is None else _model_info(self.settings, path)
        return self.known_model

    # -- the server -------------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def mark_closed(self) -> None:
        """Refuse every later call; what runs is told so when it ends."""
        self._is_closed = True

    def close(self) -> None:
        """Give the lease back. Idempotent; waits for the child's end if this was the last lease."""
        self._is_closed = True
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def refuse_if_closed(self) -> None:
        if self._is_closed:
            raise closed_error()

    def ready_endpoint(self) -> Endpoint | None:
        """Where the server is if it can be used without waiting."""
        self.refuse_if_closed()
        if self.settings.base_url is not None:
            return self._remote_endpoint()
        running = self._shared().ready()
        return running.endpoint if running is not None else None

    def endpoint(self, on_progress: Callable[[StartProgress], None] | None = None) -> Endpoint:
        """Where the server is; starts it, and waits, if it does not run.

        Args:
            on_progress: Told how the start goes; None shows a bar to people in a notebook or at a terminal.

        Raises:
            LocalLlamaError: The model or the runtime could not be found, or the server did not start.
        """
        self.refuse_if_closed()
        if self.settings.base_url is not None:
            return self._remote_endpoint()
        shared = self._shared()
        if (running := shared.ready()) is not None:
            return running.endpoint
        if on_progress is not None:
            return shared.ensure_running(on_progress).endpoint
        with shown_start() as report:
            return shared.ensure_running(report).endpoint

    def in_use(self) -> AbstractContextManager[None]:
        """Marks a request in flight."""
        return contextlib.nullcontext() if self.settings.base_url is not None else self._shared().in_use()

    def crash_of(self, endpoint: Endpoint) -> LocalLlamaError | None:
        """Why the server at `endpoint` is gone; None if it is not, as far as can be known."""
        if self.settings.base_url is not None:
            return None
        shared = self._peek()
        return shared.crash_of(endpoint.generation) if shared is not None else None

    @property
    def is_running(self) -> bool:
        """Whether our child runs at this moment."""
        return self.running() is not None

    def running(self) -> StartedServer | None:
        """The running child, if there is one."""
        shared = self._peek()
        return shared.running() if shared is not None else None

    def notes(self, endpoint: Endpoint) -> dict[str, Any]:
        """What was learned of the server at `endpoint`: its properties, how messages must be written for it."""
        if self.settings.base_url is not None:
            return self._remote_notes
        shared = self._peek()
        return shared.notes(endpoint.generation) if shared is not None else {}

    def known_notes(self) -> dict[str, Any]:
        """`notes` of the server that runs; none if it does not."""
        if self.settings.base_url is not None:
            return self._remote_notes
        running = self.running()
        return self.notes(running.endpoint) if running is not None else {}

    def server_state(self) -> str:
        """Where our server is in its life: a value of `ServerState`."""
        shared = self._peek()
        return shared.state.value if shared is not None else "unstarted"

    def _peek(self) -> SharedServer | None:
        lease = self._lease
        return lease.peek() if lease is not None else None

    def _shared(self) -> SharedServer:
        lease = self._lease
        if lease is None:
            raise closed_error()
        return lease.server()

    def _remote_endpoint(self) -> Endpoint:
        assert self.settings.base_url is not None
        key = self.settings.api_key
        base_url = self.settings.base_url.rstrip("/").removesuffix("/v1")
        return Endpoint(base_url, api_key=key.get_secret_value() if key is not None else None)


def closed_error() -> ClientClosedError:
    """For every use of a client that was closed."""
    return ClientClosedError(
        "This client was closed.", hint="Make a new one; equal settings share a server that still runs."
    )


def _new_lease(settings: ServerSettings) -> Lease:
    from ._server.registry import acquire_lease

    lease = acquire_lease(_sharing_key(settings), _starter(settings), settings.idle_timeout_seconds)
    lease.server()
    return lease


def _sharing_key(settings: ServerSettings) -> str:
    """Equal for settings that may share a server: a relative path means another model in another directory."""
    try:
        directory = str(Path.cwd())
    except OSError:  # it was removed; then a relative path names nothing, and an absolute one is as good as ever
        directory = ""
    return hashlib.sha256(f"{settings.identity()} {directory}".encode()).hexdigest()


def _model_info(settings: ServerSettings, path: Path) -> ModelInfo:
    from ._models.gguf import model_info
    from ._models.projectors import locate_projector
    from ._models.reference import parse_reference

    # Whoever sets the rope scaling by hand stretches the window beyond the trained length on purpose.
    is_stretched = any(argument.startswith(("--rope", "--yarn", "--override-kv")) for argument in settings.extra_args)
    assert settings.model is not None
    n_ctx = settings.n_ctx if settings.n_ctx is not None else parse_reference(settings.model).n_ctx
    info = model_info(path, n_ctx, allow_longer=is_stretched)
    if settings.mmproj is not None:
        return info if settings.mmproj == PROJECTOR_OFF else replace(info, mmproj=settings.mmproj)
    projector = locate_projector(settings.model, path)
    return info if projector is None else replace(info, mmproj=str(projector))


def _mock_model(reference: str, n_ctx: int | None) -> ModelInfo:
    # The mock stands for any model, also for one that is not on this machine.
    return ModelInfo(name=Path(reference).stem, path=reference, n_ctx=n_ctx or _MOCK_N_CTX)


def _load_probe() -> HealthProbe:
    # Called while the child starts, so that loading what the first call needs costs no time of its own.
    import tenacity  # noqa: F401

    from ._transports.health import probe_health

    return probe_health


def _starter(settings: ServerSettings) -> Any:
    """The function that starts a server for these settings. It must not refer to the client, or none would be freed."""

    def start(
        generation: int, is_cancelled: Callable[[], bool], on_progress: Callable[[StartProgress], None]
    ) -> StartedServer:
        from ._models.store import fetch_model
        from ._server.start import StartRequest, start_server

        def new_request(model: ModelInfo) -> StartRequest:
            return StartRequest(
                settings=settings,
                model=model,
                load_probe=_load_probe,
                generation=generation,
                environ=dict(os.environ),
                is_cancelled=is_cancelled,
                on_progress=on_progress,
            )

        assert settings.model is not None
        if settings.runtime == "mock":
            return start_server(new_request(_mock_model(settings.model, settings.n_ctx)))
        path = fetch_model(
            settings.model,
            lambda fetched: on_progress(
                StartProgress(
                    "fetching",
                    0.0,
                    fetched.done_bytes,
                    fetched.total_bytes,
                    detail=f"{fetched.reference}, {fetched.source}",
                )
            ),
            with_projector=settings.mmproj is None,
        )
        return start_server(new_request(_model_info(settings, path)))

    return start


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Await a blocking function that runs in a daemon thread of its own.

    `asyncio.to_thread` would make the end of the loop wait for the function, and a start may take minutes; a cancelled
    caller leaves at once here, and the server goes on starting for the others who want it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def run(function: Callable[[], T]) -> None:
        outcome: tuple[T | None, BaseException | None]
        try:
            outcome = function(), None
        except BaseException as raised:  # noqa: BLE001  # handed to the awaiting caller
            outcome = None, raised
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(settle, *outcome)
        del function, outcome  # this frame is one of the error's own: see `LettingGo`

    threading.Thread(target=run, args=(function,), name="localllama-start", daemon=True).start()
    return await future


def _let_go_of_attempt(state: RetryCallState) -> None:
    if state.outcome is not None:
        let_go(state.outcome.exception())


def retry_policy(max_retries: int) -> dict[str, Any]:
    """Arguments for tenacity: exponential pauses with jitter, only for what is safe to send again."""
    from tenacity import retry_if_exception, stop_after_attempt, wait_random_exponential

    return {
        "stop": stop_after_attempt(max_retries + 1),
        "wait": wait_random_exponential(multiplier=0.2, max=5.0),
        "retry": retry_if_exception(is_safe_to_repeat),
        "before_sleep": _let_go_of_attempt,
        "reraise": True,
    }


def is_safe_to_repeat(error: BaseException) -> bool:
    """Whether the failed request surely had no effect: it was never sent, or the server was still loading its model."""
    from .errors import ServerBusyError, ServerConnectionError

    if isinstance(error, ServerConnectionError):
        return not getattr(error, "is_sent", True)
    return isinstance(error, ServerBusyError)
