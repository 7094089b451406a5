"""The least that the service's server can do: a constant answer. `python -m benchmarks.contenders.hello`."""

import socket

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

from reco_assets.serving.server import options


def create_app() -> FastAPI:
    """One route, no middleware."""
    app = FastAPI()

    @app.get("/hello")
    async def hello(request: Request) -> Response:  # noqa: ARG001  # as our own routes have it
        return Response(b'{"hello":"world"}', media_type="application/json")

    return app


def main() -> None:
    """Serve on a free port and say which, as `reco serve` does."""
    sock = socket.create_server(("127.0.0.1", 0))
    print(f"Listening on http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(create_app(), **options())).run(sockets=[sock])


if __name__ == "__main__":
    main()
