"""The parts of a running service, and in which order they come and go."""

from collections.abc import Callable
from datetime import UTC, datetime

from reco_assets.serving.database import Database
from reco_assets.serving.events.event_writer import EventWriter
from reco_assets.serving.feeds.experiments import parse_experiment
from reco_assets.serving.feeds.hidden_authors import HiddenAuthors
from reco_assets.serving.feeds.trending import Trending
from reco_assets.serving.http.identity import Identity
from reco_assets.serving.monitoring.gauges import Gauges
from reco_assets.serving.monitoring.metrics import Metrics
from reco_assets.serving.realtime.recommendations import Realtime
from reco_assets.settings import Settings

Clock = Callable[[], datetime]


def wall_clock() -> datetime:
    """Now, UTC."""
    return datetime.now(UTC)


class Service:
    """What the routes work with; `app.state.service`.

    Nothing waits for the database: without it the service starts, says that it is not ready, and answers
    with what it has.

    Attributes:
        settings: as read at start.
        clock: what time it is; a replay has its own.
        metrics: what /metrics shows.
        identity: who may ask what.
        experiment: that feeds take part in; None: none.
        primary: where events go.
        reads: where feeds come from: the replica, or the primary.
        hidden_authors: whom users hide, for outages.
        writer: tracked events on their way into the database.
        trending: what is popular, in memory.
        realtime: recommendations from live votes.
        was_ready: whether it once had all it needs.
    """

    def __init__(self, settings: Settings, clock: Clock = wall_clock) -> None:
        self.settings = settings
        self.clock = clock
        self.metrics = Metrics()
        self.identity = Identity(settings)
        self.experiment = parse_experiment(settings.experiment, settings.experiment_salt)
        self.primary = _database(settings, settings.database_url, "reco service")
        self.reads = self.primary
        if settings.replica_url is not None:
            self.reads = _database(settings, settings.replica_url, "reco service, reads")
        self.hidden_authors = HiddenAuthors()
        self.writer = EventWriter(self.primary, settings, self.metrics)
        self.trending = Trending(self.reads, settings, clock)
        self.realtime = Realtime(settings, clock)
        self.was_ready = False
        self._gauges = Gauges(self)

    async def start(self) -> None:
        """Start the parts; returns without waiting for any server."""
        for part in self._parts():
            await part.start()

    async def stop(self) -> None:
        """Stop them in reverse order: what was accepted is committed before the connections close."""
        for part in reversed(self._parts()):
            await part.stop()
        self.metrics.close()

    def _parts(self) -> tuple[Database | EventWriter | Trending | Realtime | Gauges, ...]:
        databases = (self.primary,) if self.reads is self.primary else (self.primary, self.reads)
        return (*databases, self.writer, self.trending, self.realtime, self._gauges)


def _database(settings: Settings, url: str | None, application_name: str) -> Database:
    return Database(settings, url, application_name=application_name, size=settings.service_pool_size)
