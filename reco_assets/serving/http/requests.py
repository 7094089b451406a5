"""What happens to every request before and after its route: id, size, security headers, count, log line.

Plain ASGI: Starlette's BaseHTTPMiddleware would cost as much as the rest of a feed request.
"""

import logging
import re
import time
from typing import Final
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reco_assets.serving.http.problems import internal_error, route_of
from reco_assets.serving.monitoring.logs import set_request_id
from reco_assets.serving.monitoring.metrics import Metrics

log = logging.getLogger(__name__)

REQUEST_ID_HEADER: Final = b"x-request-id"
_NO_ANSWER: Final = 499
"""The status, in metrics and logs, of a request that ended without an answer."""
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

_SECURITY_HEADERS: Final = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-site",
    # Answers are about one user; no shared cache may keep them. Files set their own.
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}


class RequestEnvelope:
    """Middleware around all routes.

    The route says what it served by `scope["state"]["reco_source"]`; the label of a path is the route's own,
    so that a path that nobody serves adds no time series.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass a WebSocket or the lifespan on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        set_request_id(request_id)
        scope.setdefault("state", {})["reco_request_id"] = request_id
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                present = {name for name, _ in headers}
                headers.append((REQUEST_ID_HEADER, request_id.encode()))
                headers.extend(pair for pair in _SECURITY_HEADERS.items() if pair[0] not in present)
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except Exception:
            log.exception("request failed", extra={"method": scope["method"], "route": route_of(scope)})
            if not status:
                await internal_error()(scope, receive, send_marked)
        finally:
            took = time.perf_counter() - began
            route = route_of(scope)
            status = status or _NO_ANSWER
            self._metrics.requests.labels(route, str(status), scope["state"].get("reco_source", "")).observe(
                took
            )
            level = logging.ERROR if status >= 500 and status != 503 else logging.INFO
            if log.isEnabledFor(level):
                # The path without its parameters: those name users.
                log.log(
                    level,
                    "request",
                    extra={
                        "method": scope["method"],
                        "route": route,
                        "status": status,
                        "ms": round(took * 1000, 2),
                    },
                )


def _request_id(scope: Scope) -> str:
    """The caller's own, if it is one that can stand in a log, else a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER:
            given: str = value.decode("latin-1")
            if _SANE_ID.fullmatch(given):
                return given
    return uuid4().hex
