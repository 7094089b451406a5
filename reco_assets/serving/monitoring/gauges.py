"""What /metrics says about the state of things: looked at every few seconds, not when somebody asks."""

import asyncio
import contextlib
import logging
import math
from datetime import datetime
from typing import TYPE_CHECKING, Final

from reco_assets.errors import RecoError
from reco_assets.store.service_state import needed_revision, service_state

if TYPE_CHECKING:
    from reco_assets.serving.service import Service

log = logging.getLogger(__name__)

_EVERY_S: Final = 5.0


class Gauges:
    """Keeps the gauges of a service current.

    Ages go on growing while the database is away: an alert on them must fire just then.
    """

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._published_at: datetime | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._keep(), name="gauges")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep(self) -> None:
        while True:
            try:
                await self._look()
                # A second's imports the first time, which the first look at health would wait for.
                await asyncio.to_thread(needed_revision)
            except Exception:  # what ended this task would freeze the ages, and with them the alerts
                log.exception("The gauges could not be read.")
            await asyncio.sleep(_EVERY_S)

    async def _look(self) -> None:
        service, metrics = self._service, self._service.metrics
        metrics.set_pool("primary", service.primary.available, service.primary.stats())
        if service.reads is not service.primary:
            metrics.set_pool("reads", service.reads.available, service.reads.stats())
        metrics.realtime_lag.set(service.realtime.lag_s)
        with contextlib.suppress(RecoError, TimeoutError):
            async with service.primary.connection(timeout_s=_EVERY_S) as connection:
                live = (await asyncio.wait_for(service_state(connection), _EVERY_S)).live
            self._published_at = None if live is None else live.published_at
            metrics.set_model(None if live is None else live.model_version)
        published_at = self._published_at
        age = math.nan if published_at is None else (service.clock() - published_at).total_seconds()
        metrics.recommendations_age.set(age)
