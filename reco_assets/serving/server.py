"""uvicorn around the application: where it may listen, how many processes, how it stops."""

import gc
import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reco_assets.errors import SettingsError
from reco_assets.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

_FACTORY: Final = "reco_assets.serving.server:create_process_app"
_SHARED_METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"
_LONGEST_SHUTDOWN_S: Final = 15
_BACKLOG: Final = 2048
_UNREAD_MS: Final = 60_000
"""How long an answer may wait in the kernel for a caller that does not read it."""
_SWITCH_INTERVAL_S: Final = 0.0005


def serve(settings: Settings) -> None:
    """Listen until a signal says otherwise; open requests are answered first.

    The processes read their settings from the environment, which the caller has prepared.

    Raises:
        SettingsError: the address is not allowed, or cannot be taken.
    """
    check(settings)
    import uvicorn

    sock = _bind(settings.service_host, settings.service_port)
    with sock, _shared_metrics(settings.service_workers):
        config = uvicorn.Config(_FACTORY, factory=True, workers=settings.service_workers, **options())
        host, port = sock.getsockname()[:2]
        print(f"Listening on http://{_in_url(host)}:{port}", flush=True)
        if settings.service_workers == 1:
            uvicorn.Server(config).run(sockets=[sock])
        else:
            from uvicorn.supervisors import Multiprocess

            Multiprocess(config, sockets=[sock]).run()


def create_process_app() -> "FastAPI":
    """The application of a process that does nothing else; uvicorn calls this in each of them."""
    from reco_assets.serving.app import create_app

    # Threads beside the loop keep live votes up and find new neighbours; it has to ask them for its turn.
    # At the interpreter's 5 ms a turn requests queue up.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    return create_app(started=_freeze)


def check(settings: Settings) -> None:
    """What settings say together, before anything is started: it stops the command, not every worker anew.

    Raises:
        SettingsError: the address is not allowed, keys are missing, or the experiment cannot be read.
    """
    from reco_assets.serving.feeds.experiments import parse_experiment
    from reco_assets.serving.http.identity import Identity

    check_address(settings)
    Identity(settings)
    parse_experiment(settings.experiment, settings.experiment_salt)


def options() -> dict[str, Any]:
    """How uvicorn runs here, in the command and in tests."""
    from reco_assets.serving.http.limits import BoundedHttp

    return {
        "http": BoundedHttp,
        "log_config": None,  # serving/monitoring/logs.py
        "access_log": False,
        "server_header": False,
        "date_header": True,
        "timeout_graceful_shutdown": _LONGEST_SHUTDOWN_S,
        "ws_max_size": 65_536,
        "ws_max_queue": 4,
        # Messages are a hundred bytes; what would compress them takes a hundred times that for each page.
        "ws_per_message_deflate": False,
    }


def check_address(settings: Settings) -> None:
    """Without authentication anybody can act as anybody: that stays on this machine.

    Raises:
        SettingsError: RECO_AUTH=none on an address that others can reach.
    """
    if settings.auth != "none":
        return
    host = settings.service_host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise SettingsError(
            f"RECO_AUTH = none lets anybody act as any user, so the service does not listen on {host!r}. Use "
            "127.0.0.1, or set RECO_AUTH to api_key or jwt."
        )


def _freeze() -> None:
    """What is there now stays, and collections need not look at it again and again.

    With it they would hold up requests for tens of milliseconds, without it for one.
    """
    gc.collect()
    gc.freeze()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise SettingsError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Stop what listens there, or set "
            "RECO_SERVICE_PORT (0 takes any free port) and RECO_SERVICE_HOST."
        ) from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
    sock.set_inheritable(True)
    # Who reads "Listening on" may call at once: connections wait in the queue until a worker takes them.
    sock.listen(_BACKLOG)
    return sock


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """A directory in which several processes keep their counts, so that /metrics of any adds them up."""
    if workers == 1:
        yield
        return
    directory = Path(tempfile.mkdtemp(prefix="reco-metrics-"))
    os.environ[_SHARED_METRICS] = str(directory)
    try:
        yield
    finally:
        del os.environ[_SHARED_METRICS]
        shutil.rmtree(directory, ignore_errors=True)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
