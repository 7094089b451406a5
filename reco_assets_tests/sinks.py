"""Where alerts arrive in tests: a real webhook endpoint and a real SMTP server on loopback."""

import email
import json
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


class Webhook:
    """An HTTP endpoint that collects JSON, and answers 503 while it is down."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.down = False
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not webhook.down:
                    webhook.received.append(json.loads(body))
                self.send_response(503 if webhook.down else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://127.0.0.1:{self.server.server_port}/hook"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.received]


class MailServer:
    """An SMTP server that collects mail, and refuses it while it is down."""

    def __init__(self) -> None:
        self.received: list[EmailMessage] = []
        self.down = False
        self.controller = Controller(self, hostname="127.0.0.1", port=0)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        if self.down:
            return "451 try again later"
        assert isinstance(envelope.content, bytes)
        self.received.append(email.message_from_bytes(envelope.content, policy=default))  # type: ignore[arg-type]
        return "250 OK"

    @property
    def url(self) -> str:
        port = self.controller.server.sockets[0].getsockname()[1]
        return (
            f"mailto://127.0.0.1:{port}?from=reco@example.org&to=oncall@example.org&mode=insecure&format=text"
        )

    @property
    def titles(self) -> list[str]:
        return [message["subject"] for message in self.received]


class _AnyPort(Controller):
    """aiosmtpd probes the port it was given; with port 0 it must ask the one it got."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    thread = threading.Thread(target=webhook.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield webhook
    webhook.server.shutdown()
    webhook.server.server_close()
    thread.join()


@pytest.fixture
def mail() -> Iterator[MailServer]:
    server = MailServer()
    server.controller = _AnyPort(server, hostname="127.0.0.1", port=0)
    server.controller.start()
    yield server
    server.controller.stop()
