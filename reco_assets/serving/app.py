"""Where the service is put together."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from reco_assets import __version__
from reco_assets.serving.http import problems
from reco_assets.serving.http.identity import API_KEY_HEADER
from reco_assets.serving.http.overload import Overload
from reco_assets.serving.http.problems import documented
from reco_assets.serving.http.requests import RequestEnvelope
from reco_assets.serving.monitoring import logs
from reco_assets.serving.routes import client_files, explanations, feed, health, live_feed, tracking
from reco_assets.serving.service import Clock, Service, wall_clock
from reco_assets.settings import Settings

_DESCRIPTION = """
Events in, feeds out. Every error has the one shape of `ErrorAnswer`. Who is acting is decided by
`RECO_AUTH`: a trusted backend with an API key names the user; a browser brings a token whose subject is the
user; without authentication the service listens on loopback only.
"""


def create_app(
    settings: Settings | None = None,
    clock: Clock = wall_clock,
    started: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application; its parts start with it and stop with it.

    Args:
        settings: None: from the environment.
        clock: what time it is.
        started: called when all parts have started.

    Raises:
        SettingsError: a setting is wrong, or the mode of authentication lacks its keys.
    """
    settings = Settings.load() if settings is None else settings
    logs.configure(settings.log_level, settings.log_format)
    service = Service(settings, clock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
        await service.start()
        started()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="reco",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        # The documentation page loads scripts from elsewhere; /openapi.json is what tools need.
        docs_url=None,
        # A redirect to the spelling without a slash would lead to whatever the header Host names.
        redirect_slashes=False,
    )
    app.state.service = service
    problems.install(app)
    for module in (tracking, feed, explanations, live_feed, health, client_files):
        app.include_router(module.router)
    app.openapi = lambda: _openapi(app, settings)  # type: ignore[method-assign]
    # The last one added is the outermost: pages of other origins can read that they were turned away.
    app.add_middleware(Overload, most=settings.service_max_requests, metrics=service.metrics)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", API_KEY_HEADER, "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
            max_age=600,
        )
    app.add_middleware(RequestEnvelope, metrics=service.metrics)
    return app


def _openapi(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The schema, with this service's mode of authentication and what any route may answer."""
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        busy = {
            "description": documented(503)[503]["description"],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}},
        }
        for path, operations in schema["paths"].items():
            if not path.startswith("/api/health"):
                for operation in operations.values():
                    operation["responses"].setdefault("503", busy)
        schemes: dict[str, Any] = {
            "none": {},
            "api_key": {"api_key": {"type": "apiKey", "in": "header", "name": API_KEY_HEADER}},
            "jwt": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        }[settings.auth]
        if schemes:
            schema.setdefault("components", {})["securitySchemes"] = schemes
            for path, operations in schema["paths"].items():
                if path.startswith("/api/") and not path.startswith("/api/health"):
                    for operation in operations.values():
                        operation["security"] = [{name: []} for name in schemes]
        app.openapi_schema = schema
    return app.openapi_schema
