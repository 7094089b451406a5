"""The browser client and the demo page, as files.

The client's modules are public and the same for everybody. The demo acts as any user it likes, so it exists
only where anybody may (RECO_AUTH=none, on loopback).
"""

from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from reco_assets.serving.http.problems import Problem
from reco_assets.serving.service import Service
from reco_assets.store.demo_users import demo_users

router = APIRouter(include_in_schema=False)

STATIC: Final = Path(__file__).parents[1] / "static"

# Said here: the platform's own table takes .ts for a video and may know nothing of .js.
_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PUBLIC: Final = "public, max-age=300"
"""Seconds an old client may live on after an upgrade; then the ETag decides."""
_DEMO_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DEMO_USERS_TIMEOUT_S: Final = 2.0

_files = StaticFiles(directory=STATIC)
_READ: Final[dict[str, Any]] = {"methods": ["GET", "HEAD"]}


@router.api_route("/reco.js", **_READ)
@router.api_route("/reco.d.ts", **_READ)
@router.api_route("/react.js", **_READ)
@router.api_route("/react.d.ts", **_READ)
async def client_file(request: Request) -> Response:
    """A module of the client, or its types."""
    return await _file(request, request.scope["path"].rpartition("/")[2], {"Cache-Control": _PUBLIC})


@router.get("/")
async def root(request: Request) -> Response:
    """Where there is a demo, there."""
    _demo_service(request)
    return RedirectResponse("/demo")


@router.api_route("/demo", **_READ)
async def demo_page(request: Request) -> Response:
    """The demo."""
    return await _demo_file(request, "index.html")


@router.get("/demo/users")
async def users(request: Request) -> Response:
    """Some users to try the demo as."""
    service = _demo_service(request)
    async with service.reads.connection(timeout_s=_DEMO_USERS_TIMEOUT_S) as connection:
        found = await demo_users(connection, now=service.clock())
    return Response(to_json({"users": found}), media_type="application/json")


@router.api_route("/demo/{name}", **_READ)
async def demo_file(request: Request, name: str) -> Response:
    """What the demo's page loads."""
    return await _demo_file(request, name)


async def _demo_file(request: Request, name: str) -> Response:
    _demo_service(request)
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _DEMO_POLICY}
    return await _file(request, f"demo/{name}", headers)


async def _file(request: Request, name: str, headers: dict[str, str]) -> Response:
    # StaticFiles answers 304 to the ETag it gave, and lets no name lead out of its directory.
    response = await _files.get_response(name, request.scope)
    response.headers.update(headers)
    if response.status_code == 200:
        response.headers["Content-Type"] = _TYPES[Path(name).suffix]
    return response


def _demo_service(request: Request) -> Service:
    service: Service = request.app.state.service
    if service.settings.auth != "none" or not service.settings.demo_page:
        raise Problem(
            404, "no_demo", "The demo is served with RECO_AUTH=none and RECO_DEMO_PAGE=true; docs/service.md."
        )
    service.identity.admit(request)
    return service
