"""Whether the service lives, whether it should get requests, and its metrics."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.datastructures import State
from starlette.responses import Response

from reco_assets.errors import RecoError, SchemaError
from reco_assets.serving.service import Service
from reco_assets.store.service_state import ServiceState, needed_revision, service_state

router = APIRouter(tags=["health"])

CheckState = Literal["ok", "degraded", "failed"]

_TIMEOUT_S = 2.0


class Check(BaseModel):
    """One thing the service depends on."""

    state: CheckState = Field(description="`degraded`: feeds are answered, but not as well as they could be.")
    detail: str


class Live(BaseModel):
    """The process answers."""

    state: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Whether requests should come here, and why."""

    ready: bool
    checks: dict[str, Check]


@router.get("/api/health/live", response_model=Live)
async def live() -> Live:
    """200 as long as the process answers; looks at nothing else."""
    return Live()


@router.get(
    "/api/health/ready",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "Not ready; the checks say why."}},
)
async def ready(request: Request, response: Response) -> Ready:
    """200 when requests should come here.

    A starting process is ready once the database answers, its schema is this package's, and live votes are
    caught up. From then on a lost database makes it `degraded`, not unready: feeds are still answered from
    memory, and taking every process out at once would turn a worse feed into none.
    """
    service: Service = request.app.state.service
    checks = await _shared_checks(request.app.state, service)
    failed = any(check.state == "failed" for check in checks.values())
    if not failed:
        service.was_ready = True
    elif service.was_ready:
        for check in checks.values():
            check.state = "degraded" if check.state == "failed" else check.state
        failed = False
    if failed:
        response.status_code = 503
    return Ready(ready=not failed, checks=checks)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    service: Service = request.app.state.service
    body, content_type = await asyncio.to_thread(service.metrics.exposition)
    return Response(body, headers={"Content-Type": content_type})


async def _shared_checks(state: State, service: Service) -> dict[str, Check]:
    """One look at a time, however many ask: anybody may, and a look takes a connection that feeds need."""
    look: asyncio.Task[dict[str, Check]] | None = getattr(state, "look_at_health", None)
    if look is None or look.done():
        look = state.look_at_health = asyncio.create_task(_checks(service), name="look at health")
    # Who hangs up must not end it for the others.
    return {name: check.model_copy() for name, check in (await asyncio.shield(look)).items()}


async def _checks(service: Service) -> dict[str, Check]:
    state: ServiceState | None = None
    checks: dict[str, Check] = {}
    try:
        async with service.primary.connection(timeout_s=_TIMEOUT_S) as connection:
            state = await asyncio.wait_for(service_state(connection), _TIMEOUT_S)
        checks["database"] = _database(state)
    except SchemaError:
        checks["database"] = Check(state="ok", detail="answers")
        # Without the error, which names the server: anybody may read this.
        checks["schema"] = Check(
            state="failed", detail="a table, a column or a right on it is missing: run `reco migrate`"
        )
    except (RecoError, TimeoutError):
        checks["database"] = Check(state="failed", detail="cannot be reached, or is too slow to answer")
    if state is not None:
        checks["schema"] = await _schema(state)
        checks["recommendations"] = _age(service, state)
    for name in ("schema", "recommendations"):
        checks.setdefault(name, Check(state="degraded", detail="the database cannot be asked"))
    if service.reads is not service.primary:
        up = service.reads.available
        checks["replica"] = Check(
            state="ok" if up else "degraded", detail="answers" if up else "cannot be reached"
        )
    checks["model"] = _model(service, asked=state is not None)
    return checks


def _database(state: ServiceState) -> Check:
    if state.writable:
        return Check(state="ok", detail="answers")
    return Check(
        state="failed", detail="is read-only, events are turned away: point RECO_DATABASE_URL at the primary"
    )


async def _schema(state: ServiceState) -> Check:
    needed = await asyncio.to_thread(needed_revision)
    if state.revision == needed:
        return Check(state="ok", detail=f"revision {needed}")
    return Check(
        state="failed", detail=f"at {state.revision or 'no revision'}, needed is {needed}: run `reco migrate`"
    )


def _age(service: Service, state: ServiceState) -> Check:
    if state.live is None:
        return Check(state="degraded", detail="nothing was published yet: `reco run`")
    hours = (service.clock() - state.live.published_at).total_seconds() / 3600
    late = hours > service.settings.stale_after_hours
    return Check(
        state="degraded" if late else "ok",
        detail=f"published {hours:.1f} h ago by {state.live.model_version}"
        + (f"; the limit is {service.settings.stale_after_hours:g} h: look at the pipeline" if late else ""),
    )


def _model(service: Service, *, asked: bool) -> Check:
    realtime = service.realtime
    if not asked and realtime.state != "ready":
        return Check(
            state="failed" if realtime.state == "loading" else "degraded",
            detail=f"real-time recommendations are {realtime.state}: the database cannot be asked",
        )
    if realtime.state == "loading":
        return Check(state="failed", detail="live votes are being caught up")
    if realtime.state == "ready":
        return Check(state="ok", detail=f"{realtime.model_version}, live votes as of {realtime.as_of}")
    return Check(
        state="degraded", detail=f"real-time recommendations are {realtime.state}: {realtime.public_reason}"
    )
