"""Structured logs: one JSON object a line, with the request's id.

At info and above nothing says who a user is or what they did: ids and metadata appear at debug only.
"""

import logging
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_request_id: ContextVar[str] = ContextVar("reco_request_id", default="")


def current_request_id() -> str:
    """The id of the request that is being answered; empty outside of one."""
    return _request_id.get()


def set_request_id(request_id: str) -> None:
    """From here on, in this task, log lines and errors carry this id."""
    _request_id.set(request_id)


def configure(level: str, form: str) -> None:
    """Send every logger of the process through structlog to standard error.

    Args:
        level: debug, info, warning or error.
        form: json, or console for people.
    """
    import structlog

    shared: list[Any] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request_id,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Requests are logged by our own middleware, without query strings, which hold user ids.
    logging.getLogger("uvicorn.access").disabled = True
    # WebSockets it reports elsewhere, with the query string.
    logging.getLogger("uvicorn.error").addFilter(_without_query_strings)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # which plug-ins it has is nobody's concern here
    # The pool repeats at warning level what `Database` says once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


def _without_query_strings(record: logging.LogRecord) -> bool:
    return "WebSocket" not in str(record.msg)


def _add_request_id(
    logger: Any,  # noqa: ARG001
    method: str,  # noqa: ARG001
    event: "MutableMapping[str, Any]",
) -> "MutableMapping[str, Any]":
    event.pop("color_message", None)  # uvicorn's, for terminals
    if request_id := _request_id.get():
        event.setdefault("request_id", request_id)
    return event
