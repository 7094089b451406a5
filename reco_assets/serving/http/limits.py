"""How long and how slow the head of a request may be: uvicorn's fast parser bounds neither."""

import asyncio
from http import HTTPStatus
from typing import Final
from uuid import uuid4

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD_BYTES: Final = 65_536
"""Longest cursors make URLs of a few kilobytes. What arrives in one piece with the end of the head, at most
256 KB, is not cut."""
HEAD_WITHIN_S = 10.0
"""From the connection, or from the first byte of a further request on it."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, for callers who mean no good: a head comes before any credentials.

    A head that is too large is answered with 400, one that takes too long is not answered. In both cases the
    connection ends. The rest of a body that nobody waits for any more has as long as a head.
    """

    _deadline: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _arriving = 0
    _handed_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is awaited from here on."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and look at what is still missing."""
        self._arriving = len(data)
        super().data_received(data)
        if self._handed_over or self.transport.is_closing():
            self._stop_waiting()
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD_BYTES:
                self._refuse_head()
                return
        # Most requests arrive in one piece and need no timer.
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self._await_head()
        else:
            self._stop_waiting()

    def on_message_begin(self) -> None:
        """A head begins, somewhere in what is arriving; it counts from the next piece on."""
        self._in_head, self._head_bytes = True, -self._arriving
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Another protocol goes on, with limits of its own."""
        self._handed_over = True
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """As uvicorn does for what is no HTTP, in the one shape of an error."""
        error = {"code": "bad_request", "message": msg, "request_id": uuid4().hex}
        body = to_json({"error": error})
        lines = [b"HTTP/1.1 %d %s" % (HTTPStatus.BAD_REQUEST, HTTPStatus.BAD_REQUEST.phrase.encode())]
        lines += [b"%s: %s" % pair for pair in self.server_state.default_headers]
        lines += [b"content-type: application/json", b"content-length: %d" % len(body), b"connection: close"]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()

    def _refuse_head(self) -> None:
        self._stop_waiting()
        if self._answering():  # a request before this one: a second answer in the midst of its own is worse
            self.transport.close()
        else:
            self.send_400_response(
                f"The request's line and headers are larger than {LARGEST_HEAD_BYTES} bytes."
            )

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_WITHIN_S, self._too_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self._answering():
            self.cycle.keep_alive = False  # the connection ends with the answer
        elif not self.transport.is_closing():
            self.transport.close()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
