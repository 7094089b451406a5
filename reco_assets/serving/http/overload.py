"""No more requests at a time than can be answered soon; the others hear at once when to come back."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from reco_assets.serving.http.problems import RETRY_AFTER_S, error_response
from reco_assets.serving.monitoring.metrics import Metrics

_ALWAYS_ANSWERED: Final = ("/api/health/live", "/api/health/ready", "/metrics")
"""Who looks after the service needs answers just then."""


class Overload:
    """Middleware that counts open requests and turns away what exceeds the bound.

    What hangs behind the service would otherwise fill it with requests that wait, each with its body, until
    it has neither memory nor file descriptors; their callers would long be gone. WebSockets have a bound of
    their own (RECO_LIVE_FEED_SOCKETS).

    Args:
        app: what is protected.
        most: requests at a time.
        metrics: counts those turned away.
    """

    def __init__(self, app: ASGIApp, most: int, metrics: Metrics) -> None:
        self._app = app
        self._most = most
        self._turned_away = metrics.turned_away
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or turn away."""
        if scope["type"] != "http" or scope["path"] in _ALWAYS_ANSWERED:
            await self._app(scope, receive, send)
            return
        if self._open >= self._most:
            self._turned_away.inc()
            refusal = error_response(
                503,
                "overloaded",
                f"{self._open} requests are being answered, as many as RECO_SERVICE_MAX_REQUESTS allows. Try "
                f"again in {RETRY_AFTER_S} s.",
                {"Retry-After": RETRY_AFTER_S},
            )
            await refusal(scope, receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1
