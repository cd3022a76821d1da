"""A server elsewhere, behind TLS: its certificate is looked at, and limits hold there too."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.transports.conftest import Twin
from localllama import ServerConnectionError
from localllama._transports import connection
from localllama.types import Endpoint

# Made for this file, for 127.0.0.1, for a hundred years: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256
# -nodes -days 36500 -subj /CN=localhost -addext "subjectAltName=IP:127.0.0.1,DNS:localhost". The key guards nothing.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUDtuXjpyVKsfvn9OE30r+mHEb5RQwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODA0MTkyOVoYDzIxMjYxMTA0
MDQxOTI5WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASgARGS+gklveRautXOPS74HttUcGRhBhzlERmiQFaJbEOiGeskNJfG
qF/P2qVRd7N92wMyYHwiR71OTrFXYQsto28wbTAdBgNVHQ4EFgQUTzRfAqZ+ggQy
/tjQr2efXY49tt0wHwYDVR0jBBgwFoAUTzRfAqZ+ggQy/tjQr2efXY49tt0wDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARhwR/AAABgglsb2NhbGhvc3QwCgYIKoZI
zj0EAwIDSAAwRQIhAJ8ktduU+kOuEtJvTr0/j/iwl06toPIB8WYaGuWRmYXlAiAR
zWfGEAaBA29LDGoaRzTQFagHXtoifxC9amSypbXb7w==
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWjqtyFMKh1FUeh6w
AVQi6vgaRoNWgkFvOEiIKsRqIB2hRANCAASgARGS+gklveRautXOPS74HttUcGRh
BhzlERmiQFaJbEOiGeskNJfGqF/P2qVRd7N92wMyYHwiR71OTrFXYQst
-----END PRIVATE KEY-----
"""


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "both.pem"
    path.write_text(KEY + CERTIFICATE)
    return path


@pytest.fixture
def endpoint(pem: Path) -> Iterator[Endpoint]:
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "9")
            self.end_headers()
            self.wfile.write(b'{"n": 27}')

        def log_message(self, *_: object) -> None:
            """Tests say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that does not trust us hangs up."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with Server(("127.0.0.1", 0), Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield Endpoint(f"https://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
        thread.join()


def test_a_certificate_that_nobody_vouches_for_is_refused(twin: Twin, endpoint: Endpoint) -> None:
    with pytest.raises(ServerConnectionError, match=r"(CERTIFICATE|certificate)"):
        twin.json(endpoint, "/props")


def test_a_certificate_that_is_trusted_is_taken(
    twin: Twin, endpoint: Endpoint, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if an authority of the system had signed it.
    monkeypatch.setattr(connection, "_default_ssl_context", lambda: ssl.create_default_context(cafile=str(pem)))
    assert twin.json(endpoint, "/props") == {"n": 27}
