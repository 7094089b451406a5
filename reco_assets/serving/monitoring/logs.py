"""Structured logs: one JSON object a line, with the request's id.

At info and above nothing says who a user is or what they did: ids and metadata appear at debug only.
"""

import logging
import sys
import traceback
from collections.abc import Iterator
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
                structlog.processors.ExceptionRenderer(_traceback),
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
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # which plug-ins it has is nobody's concern here
    # The pool repeats at warning level what `Database` says once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


def _is_news(record: logging.LogRecord) -> bool:
    message = str(record.msg)
    # The second is what uvicorn says of every WebSocket that was refused, with an answer.
    return "WebSocket" not in message and "returned without completing handshake" not in message


def _traceback(exc_info: Any) -> str:
    """As Python shows it, but of PostgreSQL's errors only the kind and the main sentence.

    Their details quote rows: who did what, and the metadata.
    """
    return "".join(_shown(exc_info[1], set())).rstrip("\n")


def _shown(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None and id(earlier) not in seen:
        yield from _shown(earlier, seen)
        yield "\nwhich led to:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    yield from _last_lines(error)
    for each in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        if id(each) not in seen:
            yield "\nof which one:\n\n"
            yield from _shown(each, seen)


def _last_lines(error: BaseException) -> list[str]:
    import psycopg

    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        return traceback.format_exception_only(error)
    return [f"psycopg.errors.{type(error).__name__}: {error.sqlstate} {error.diag.message_primary}\n"]


def _add_request_id(
    logger: Any,  # noqa: ARG001
    method: str,  # noqa: ARG001
    event: "MutableMapping[str, Any]",
) -> "MutableMapping[str, Any]":
    event.pop("color_message", None)  # uvicorn's, for terminals
    if request_id := _request_id.get():
        event.setdefault("request_id", request_id)
    return event
