"""Whether a server is ready, asked once."""

from __future__ import annotations

from typing import Literal

from localllama._frames import let_go
from localllama.errors import LocalLlamaError, RequestTimeoutError, ServerBusyError, ServerConnectionError
from localllama.settings import TimeoutSettings
from localllama.types import Endpoint

from .http import HTTPTransport

__all__ = ["probe_health"]


def probe_health(endpoint: Endpoint, timeout_seconds: float) -> Literal["ready", "loading", "unreachable"]:
    """Ask `/health` once.

    Args:
        endpoint: Where the server is.
        timeout_seconds: Most seconds for the whole question.

    Returns:
        "loading" while the server answers that it loads its model, "unreachable" if nothing answers in time.
    """
    transport = HTTPTransport(endpoint)
    try:
        transport.get_json("/health", TimeoutSettings(total_seconds=timeout_seconds))
    except ServerBusyError:
        return "loading"
    except (ServerConnectionError, RequestTimeoutError) as error:
        let_go(error)
        return "unreachable"
    except LocalLlamaError:
        return "ready"  # it answers; what is wrong with it, the first real request says better
    finally:
        transport.close()
    return "ready"
