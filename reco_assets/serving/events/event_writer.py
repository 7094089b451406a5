"""Group commit: events of concurrent requests share one statement, and nobody is told before it is committed.

A group collects for some milliseconds. While one is being committed the next one grows, so that under
load the groups are as large as they need to be.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from reco_assets.errors import (
    DatabaseBusy,
    DatabaseUnreachable,
    RecoError,
    SchemaError,
    SettingsError,
    StorageFull,
)
from reco_assets.serving.database import Database
from reco_assets.serving.monitoring.metrics import Metrics
from reco_assets.settings import Settings
from reco_assets.store.event_writes import (
    EventTable,
    NewEvent,
    Outcome,
    insert_events,
    is_refusal,
    is_trouble,
)

__all__ = ["EventWriter", "NewEvent", "Outcome"]

log = logging.getLogger(__name__)

_COMMITTERS: Final = 2
"""While one waits for the disk, the other one's rows are being written."""
_LARGEST_GROUP: Final = 1000
_PAUSE_S: Final = 0.05


@dataclass(eq=False, slots=True)
class _Waiting:
    """A request that waits for its commit; times are the loop's."""

    events: Sequence[NewEvent]
    outcomes: "asyncio.Future[list[Outcome]]"
    arrived: float
    deadline: float


class _Unwritable(DatabaseBusy):
    """Trying again at once is of no use."""


class EventWriter:
    """Stores events and says, per event, what became of it.

    Args:
        database: where they go.
        settings: RECO_TRACK_COMMIT_MS, RECO_TRACK_QUEUE_EVENTS, RECO_TRACK_TIMEOUT_S.
        metrics: counts the events of each commit.
    """

    def __init__(self, database: Database, settings: Settings, metrics: Metrics) -> None:
        self._database = database
        self._collect_s = settings.track_commit_ms / 1000
        self._most = settings.track_queue_events
        self._timeout_s = settings.track_timeout_s
        self._metrics = metrics
        self._queue: deque[_Waiting] = deque()
        self._n_queued = 0
        self._arrived = asyncio.Event()
        self._collecting = asyncio.Lock()
        self._stopping = False
        self._table: EventTable | None = None
        self._writable = True
        self._committers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to commit."""
        self._committers = [asyncio.create_task(self._work()) for _ in range(_COMMITTERS)]

    async def stop(self) -> None:
        """Take no more; commit what was accepted, for as long as a request would wait."""
        self._stopping = True
        self._arrived.set()
        if self._committers:
            _, late = await asyncio.wait(self._committers, timeout=self._timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._committers, return_exceptions=True)
        self._turn_away(DatabaseUnreachable("The service stopped before these events were committed."))

    async def write(self, events: Sequence[NewEvent]) -> list[Outcome]:
        """Store the events; returns once they are committed, with what became of each.

        After an error they may be stored or not: trying again with the same ids is safe.

        Raises:
            DatabaseUnreachable: at once while the server is gone; or it was lost and was not back in time.
            DatabaseBusy: at once when too many events wait; or no commit within RECO_TRACK_TIMEOUT_S.
            RecoError: see `Database.connection`.
        """
        if not events:
            return []
        if self._stopping:
            raise DatabaseUnreachable("The service is stopping and takes no more events.")
        self._database.check_available()
        if self._n_queued and self._n_queued + len(events) > self._most:
            raise DatabaseBusy(
                f"{self._n_queued} events wait for a commit; RECO_TRACK_QUEUE_EVENTS allows {self._most}."
            )
        loop = asyncio.get_running_loop()
        now = loop.time()
        entry = _Waiting(events, loop.create_future(), now, now + self._timeout_s)
        self._queue.append(entry)
        self._n_queued += len(events)
        self._arrived.set()
        try:
            async with asyncio.timeout_at(entry.deadline):
                return await entry.outcomes
        except TimeoutError:
            raise DatabaseBusy(f"No commit within RECO_TRACK_TIMEOUT_S ({self._timeout_s:g} s).") from None

    async def _work(self) -> None:
        while True:
            async with self._collecting:
                group = await self._next_group()
            if group is None:
                return
            try:
                await self._commit(group)
            except (
                Exception
            ) as error:  # a committer that ends would take half of the service's writing with it
                log.exception("A group of events failed.")
                _fail(group, error)

    async def _next_group(self) -> list[_Waiting] | None:
        """What has collected; None when there is nothing left and nothing will come."""
        while not self._queue:
            if self._stopping:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        pause = self._queue[0].arrived + self._collect_s - asyncio.get_running_loop().time()
        if pause > 0 and self._n_queued < _LARGEST_GROUP and not self._stopping:
            await asyncio.sleep(pause)
        group: list[_Waiting] = []
        n_events = 0
        while self._queue and (not group or n_events + len(self._queue[0].events) <= _LARGEST_GROUP):
            entry = self._queue.popleft()
            self._n_queued -= len(entry.events)
            if not entry.outcomes.done():  # done: nobody waits for it any more
                group.append(entry)
                n_events += len(entry.events)
        return group

    async def _commit(self, group: list[_Waiting]) -> None:
        events = [event for entry in group for event in entry.events]
        if not events:
            return
        self._metrics.commits.observe(len(events))
        try:
            outcomes = await self._stored(events, max(entry.deadline for entry in group))
        except psycopg.Error as error:
            if not is_refusal(error):
                _fail(group, error)
            elif len(group) > 1:
                await self._commit(group[: len(group) // 2])
                await self._commit(group[len(group) // 2 :])
            else:
                await self._sift(group[0], error)
        except RecoError as error:
            _fail(group, error)
        else:
            start = 0
            for entry in group:
                end = start + len(entry.events)
                if not entry.outcomes.done():
                    entry.outcomes.set_result(outcomes[start:end])
                start = end

    async def _sift(self, entry: _Waiting, error: psycopg.Error) -> None:
        """Find the events that PostgreSQL refuses, by halves, and store the others."""

        async def sifted(events: Sequence[NewEvent], refusal: psycopg.Error) -> list[Outcome]:
            if len(events) == 1:
                log.warning(
                    "PostgreSQL refuses an event: %s (%s) %s",
                    type(refusal).__name__,
                    refusal.sqlstate,
                    refusal.diag.constraint_name or "",
                )
                return ["refused"]
            outcomes: list[Outcome] = []
            for half in (events[: len(events) // 2], events[len(events) // 2 :]):
                try:
                    outcomes += await self._stored(half, entry.deadline)
                except psycopg.Error as error:
                    if not is_refusal(error):
                        raise
                    outcomes += await sifted(half, error)
            return outcomes

        try:
            outcomes = await sifted(entry.events, error)
        except (psycopg.Error, RecoError) as other:
            _fail([entry], other)
        else:
            if not entry.outcomes.done():
                entry.outcomes.set_result(outcomes)

    async def _stored(self, events: Sequence[NewEvent], deadline: float) -> list[Outcome]:
        """Try until it is known what became of the events, or the deadline.

        A connection that is lost during COMMIT leaves unknown whether it happened. The ids make another try
        harmless, and what it then finds to be there was most probably ours.
        """
        loop = asyncio.get_running_loop()
        uncertain = False
        while True:
            try:
                outcomes = await self._insert(events, deadline)
            except _Unwritable:
                raise
            except (DatabaseUnreachable, DatabaseBusy) as error:
                if isinstance(error, DatabaseUnreachable):
                    self._turn_away(error)
                    uncertain = True
                if loop.time() + _PAUSE_S >= deadline:
                    raise
                await asyncio.sleep(_PAUSE_S)
                if not await self._database.wait_available(deadline - loop.time()):
                    raise
                continue
            except SchemaError:
                self._table = None  # it may be migrated meanwhile
                raise
            return _as_ours(events, outcomes) if uncertain else outcomes

    async def _insert(self, events: Sequence[NewEvent], deadline: float) -> list[Outcome]:
        remaining = deadline - asyncio.get_running_loop().time()
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._database.connection(timeout_s=max(remaining, 0.001)) as connection,
            ):
                if self._table is None:
                    self._table = await EventTable.read(connection)
                try:
                    outcomes = await insert_events(connection, self._table, events)
                except psycopg.errors.ReadOnlySqlTransaction:
                    # The address may lead to another server by now: the next one asks anew.
                    await connection.close()
                    raise
        except TimeoutError:
            raise DatabaseBusy(f"No commit within RECO_TRACK_TIMEOUT_S ({self._timeout_s:g} s).") from None
        except (SettingsError, StorageFull) as error:
            raise self._unwritable(str(error)) from None
        except psycopg.Error as error:
            if is_trouble(error):
                raise self._unwritable(f"{type(error).__name__}: {error.diag.message_primary}") from None
            raise
        if not self._writable:
            self._writable = True
            log.warning("PostgreSQL takes events again.")
        return outcomes

    def _unwritable(self, reason: str) -> "_Unwritable":
        """The server is there and takes no events, which passes; the log says so once."""
        if self._writable:
            self._writable = False
            log.error("PostgreSQL takes no events: %s", reason)
        return _Unwritable("PostgreSQL is there, but takes no events. The log says why.")

    def _turn_away(self, error: RecoError) -> None:
        """Nothing of what still queues has been tried: its senders can be told at once."""
        _fail(self._queue, error)
        self._queue.clear()
        self._n_queued = 0


def _as_ours(events: Sequence[NewEvent], outcomes: list[Outcome]) -> list[Outcome]:
    """What is there after a commit of which nobody knew: ours, once for each id."""
    ours: list[Outcome] = []
    seen: set[int] = set()
    for event, outcome in zip(events, outcomes, strict=True):
        ours.append("stored" if outcome == "duplicate" and event.id.int not in seen else outcome)
        seen.add(event.id.int)
    return ours


def _fail(entries: "Sequence[_Waiting] | deque[_Waiting]", error: Exception) -> None:
    for entry in entries:
        if not entry.outcomes.done():
            entry.outcomes.set_exception(error)
