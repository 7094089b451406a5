"""Replace the live recommendations in one instant.

The new rows are built in a table aside, checked against what the app deleted meanwhile, and renamed
into place in one short transaction. Readers see the old generation or the new one. A publisher that
dies at any instant leaves the old generation live; the next one clears its debris.

What a publication decides runs on one connection, which holds the lock: losing the connection loses the
lock and the work together, so two publishers never build at once. (A pooler in transaction mode breaks
session locks; publish through a direct connection.) Other connections only help: one reads the
interactions while the rows are loaded, two build indexes of this very table.

What may go live is asked twice: before the rows are sent, so that they are sent without those that may
not, and again under the foreign keys, where only what has changed in between is deleted. An
interaction counts from then on if its `created_at` is at most `background_reader.LATE` older than the
publication, so one that is imported with an older time during these seconds may be missed.

A reader in a REPEATABLE READ transaction that began before the swap and first touches the table
after it sees the new rows (they are loaded frozen), but not those carried over.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from reco_assets.errors import BadInput, DatabaseUnreachable, PublicationRefused
from reco_assets.store import eligibility, generations, old_lists, table_clone
from reco_assets.store.adoption import id_type_of, relation_columns
from reco_assets.store.background_reader import LATE, BackgroundReader, background_reader
from reco_assets.store.copy_buffer import COLUMNS, CONSTANTS, RecommendationRows, SharedValues, copy_chunks
from reco_assets.store.database import connect_with_retry, pauses, sqlstate
from reco_assets.store.generations import Generation, Origin
from reco_assets.store.patience import allow_whole_lock_wait, bound_lock_wait, with_patience
from reco_assets.store.publication_debris import clear, clear_replaced
from reco_assets.store.publication_lock import publication_lock
from reco_assets.store.screening import Screening
from reco_assets.store.table_clone import LIVE, NEXT

STAGES: Final = (
    *("locked", "cleared", "recorded", "copied", "indexed", "referenced", "filtered", "validated"),
    *("swapping", "swapped", "done"),
)
"""Where `on_stage` is called, in order. "swapping" is inside the swap's transaction, before its commit."""

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reco_assets.store.schema import IdType

_log = logging.getLogger(__name__)

_TOUCHED = 1000
"""One deleted row in so many touches one page in twenty."""


@dataclass(frozen=True)
class Publication:
    """What became of a publication.

    Attributes:
        status: "live", or "archived" when a newer partition is live and was kept.
        method: "swap", or "in place" when views or triggers hang on the table.
        dropped_reasons: reason → rows; see `eligibility` and `old_lists`.
        replaced: The generation that was live before.
    """

    generation_id: UUID
    status: str
    partition_date: date
    n_users: int
    n_recommendations: int
    n_carried_over: int = 0
    n_dropped: int = 0
    dropped_reasons: Mapping[str, int] = field(default_factory=dict)
    method: str = "swap"
    message: str = ""
    replaced: UUID | None = None


@dataclass(frozen=True)
class Rollback:
    """That lists of the past are to be live again, whatever newer partition is live.

    Attributes:
        source: The generation that they were made for.
        replaces: What was live when this was decided; something else by then is left alone.
        decided_at: With time zone. Rows of absent users are kept if they expire later and belong to no newer
            partition: those are what is rolled back.
    """

    source: UUID
    replaces: UUID | None
    decided_at: datetime


def publish(
    engine: sa.Engine,
    rows: RecommendationRows,
    *,
    partition_date: date,
    generated_at: datetime,
    expires_at: datetime,
    model_version: str,
    mlflow_run_id: str | None = None,
    dagster_run_id: str | None = None,
    model_digest: str | None = None,
    lists_digest: str | None = None,
    rollback: Rollback | None = None,
    wait_s: float = 60.0,
    say: Callable[[str], None] = _log.info,
    on_stage: Callable[[str], None] = lambda _stage: None,
) -> Publication:
    """Make `rows` the live generation, or archive it when a newer partition is live.

    A lost connection is retried from the start (RECO_CONNECTION_RETRIES); if it was lost during the
    final commit and that did happen, the publication is recognised and not repeated.

    Args:
        engine: From `create_engine_for`.
        rows: No pair of user and post twice.
        partition_date: The newest partition publishes; an equal one replaces. After a rollback that is the
            newest that was ever live, or the restored one again.
        generated_at: With time zone. Rows of absent users that expire later than this are kept.
        expires_at: When readers stop using the rows.
        model_version: Such as `collaborative_filtering_v7`.
        mlflow_run_id: For the record.
        dagster_run_id: For the record.
        model_digest: Of the model's files; without it the service does not compute with them.
        lists_digest: Of the file that the rows are archived in; without it they cannot be rolled back to.
        rollback: Set if the lists are not new.
        wait_s: How long to wait for another publisher to end, or for the server to notice that one was
            killed; 0 asks once.
        say: Told what is waited for.
        on_stage: Called with each name of `STAGES`; tests interrupt here.

    Raises:
        PublicationInProgress: Another process is still publishing after `wait_s`.
        PublicationRefused: No row is left to publish, or a rollback came too late; the live generation stays.
        BadInput: A pair occurs twice, or a time lacks its zone.
        SchemaError: Not migrated, or foreign keys of others point at the table.
        DatabaseBusy: The locks for the swap could not be had; nothing changed.
        DatabaseUnreachable: The connection was lost more often than is retried.
    """
    if generated_at.tzinfo is None or expires_at.tzinfo is None:
        raise BadInput(
            f"generated_at {generated_at} and expires_at {expires_at} need a time zone, such as UTC."
        )
    source = rollback.source if rollback else None
    origin = Origin(
        *(partition_date, model_version, mlflow_run_id, dagster_run_id), model_digest, lists_digest, source
    )
    shared = SharedValues(generated_at.astimezone(UTC), expires_at.astimezone(UTC), model_version, uuid4())
    job = _Job(engine, rows, origin, shared, rollback, wait_s, say, on_stage)
    for pause in pauses(engine):
        try:
            return job.run()
        except DatabaseUnreachable:
            if pause is None:
                raise
        time.sleep(pause)
    raise AssertionError("unreachable")


@dataclass
class _Job:
    """One publication, on one connection. `run` may be called again after that connection is lost."""

    engine: sa.Engine
    rows: RecommendationRows
    origin: Origin
    shared: SharedValues
    rollback: Rollback | None
    wait_s: float
    say: Callable[[str], None]
    on_stage: Callable[[str], None]

    def run(self) -> Publication:
        with (
            connect_with_retry(self.engine) as connection,
            publication_lock(connection, self.wait_s, self.say),
        ):
            self.on_stage("locked")
            with connection.begin():
                earlier_try = generations.generation(connection, self.shared.generation_id)
                live = generations.live_generation(connection)
                newest = generations.newest_published_day(connection)
            clear(connection, "Its publisher ended before the swap. The live generation was kept.")
            self.on_stage("cleared")
            if earlier_try is not None and earlier_try.status == "live":  # lost in the commit, which happened
                return _published(earlier_try)
            if self.rollback is not None:
                _check_still_live(self.rollback, live)
            elif live and newest and (message := _why_archived(self.origin.partition_date, live, newest)):
                return self._archive(connection, message)
            with connection.begin():
                table_clone.dependents(connection)  # refuse before the work, not after it
                generations.record_building(connection, self.shared.generation_id, self.origin)
            self.on_stage("recorded")
            try:
                return self._build_and_swap(connection, live)
            except BaseException as error:
                status = "refused" if isinstance(error, PublicationRefused) else "failed"
                with suppress(Exception):  # the next run clears what this cannot
                    clear(connection, f"{type(error).__name__}: {error}", status=status)
                raise

    def _archive(self, connection: sa.Connection, message: str) -> Publication:
        n_users, n_rows = self.rows.count_users(), len(self.rows)
        with connection.begin():
            archived = generations.record_archived(
                connection, self.origin, message=message, n_users=n_users, n_recommendations=n_rows
            )
        return Publication(
            archived, "archived", self.origin.partition_date, n_users, n_rows, method="none", message=message
        )

    def _build_and_swap(self, connection: sa.Connection, live: Generation | None) -> Publication:
        generation_id = self.shared.generation_id
        with connection.begin():
            id_type = id_type_of(connection)
            began = connection.scalar(_CLOCK)
        with background_reader(connection, self.rows, id_type) as reader:
            with connection.begin():
                eligibility.note_ids(connection, self.rows, id_type)
                screening = Screening(self.rows, eligibility.standing(connection))
                eligibility.forget_users(connection, screening.users_without_rows())
            with connection.begin():
                self._load(connection, screening.kept, id_type)
                old_lists.carry_over(connection, *self._kept_rows)
            self.on_stage("copied")
            index_names = self._build_indexes(connection)
            self.on_stage("indexed")
            # From here on a user or post that the app deletes takes its new rows along.
            with connection.begin():
                keys = table_clone.foreign_keys(connection)
            for key in keys:  # one transaction each: holding users while waiting for posts invites deadlocks
                with_patience(connection, partial(table_clone.run, connection, key.ddl))
            self.on_stage("referenced")
            counts = with_patience(connection, partial(self._filter, connection, screening, reader, began))
        self.on_stage("filtered")
        with connection.begin():
            table_clone.copy_attributes(connection)
            untouched = counts["n_dropped"] * _TOUCHED < counts["n_recommendations"]
            table_clone.validate(connection, keys, untouched=untouched)
        self.on_stage("validated")
        method = with_patience(connection, partial(self._swap, connection, index_names, counts))
        self.on_stage("swapped")
        clear_replaced(connection)
        self.on_stage("done")
        replaced = live.id if live else None
        return Publication(
            generation_id, "live", self.origin.partition_date, method=method, replaced=replaced, **counts
        )

    @property
    def _kept_rows(self) -> tuple[datetime, date | None]:
        """Of users without a new one: those that expire after the instant, of no later partition."""
        if self.rollback is None:
            return self.shared.generated_at, None
        return self.rollback.decided_at, self.origin.partition_date

    def _load(self, connection: sa.Connection, kept: "NDArray[np.bool_]", id_type: "IdType") -> None:
        """Create and fill in one transaction: only then may COPY freeze the rows."""
        table_clone.create_next(connection)
        # Asked before the COPY, which occupies the connection.
        uuid_key = relation_columns(connection)[LIVE]["id"] == "uuid"  # an app's own table may differ
        columns = [name for name in COLUMNS if name not in CONSTANTS and (uuid_key or name != "id")]
        driver: Any = connection.connection.driver_connection
        command = f"COPY {NEXT} ({', '.join(columns)}) FROM STDIN (FORMAT binary, FREEZE)"
        constants = {name: getattr(self.shared, name) for name in CONSTANTS}
        with (
            table_clone.constant_columns(connection, constants),
            driver.cursor() as cursor,
            cursor.copy(command) as copy,
        ):
            for chunk in copy_chunks(self.rows, self.shared, id_type, columns, kept):
                copy.write(chunk)

    def _build_indexes(self, connection: sa.Connection) -> list[str]:
        with ExitStack() as stack:
            helpers = [stack.enter_context(each) for each in _spare_connections(connection.engine, 2)]
            try:
                return table_clone.build_indexes(connection, helpers)
            except Exception as error:
                if sqlstate(error) != "23505":
                    raise
                raise BadInput(
                    f"A pair of user and post occurs twice: {error} Nothing was published."
                ) from error

    def _filter(
        self, connection: sa.Connection, screening: Screening, reader: BackgroundReader, began: datetime
    ) -> dict[str, Any]:
        """Delete what may not go live by now; in the caller's transaction, which may be repeated."""
        table_clone.analyze(connection)
        outcome = screening.again(eligibility.standing(connection), reader.seen(connection, began - LATE))
        eligibility.drop(connection, outcome.drops)
        old_lists.carry_over_emptied(connection, *self._kept_rows, outcome.emptied)
        dropped_old, n_carried_over = old_lists.drop_ineligible(connection)
        dropped = dict(sorted({**outcome.dropped, **dropped_old}.items()))
        if outcome.n_recommendations == 0:
            why = ", ".join(f"{reason} {n}" for reason, n in dropped.items()) or "there were none"
            raise PublicationRefused(
                f"None of the {len(self.rows)} recommendations of partition {self.origin.partition_date} can "
                f"be published ({why}). The live generation stays. Look at the views recommendable_posts and "
                "hidden_authors, and whether the model was fitted on this database."
            )
        return {
            "n_users": outcome.n_users,
            "n_recommendations": outcome.n_recommendations,
            "n_carried_over": n_carried_over,
            "n_dropped": sum(dropped.values()),
            "dropped_reasons": dropped,
        }

    def _swap(self, connection: sa.Connection, index_names: list[str], counts: dict[str, Any]) -> str:
        """In the caller's transaction; over in milliseconds unless it has to copy in place."""
        if table_clone.dependents(connection):
            # A rename would leave them on the replaced table. Slower by the indexes' upkeep, and it
            # bloats the table, but still atomic: readers keep the old rows until the commit.
            table_clone.run(connection, f"LOCK TABLE {LIVE} IN SHARE ROW EXCLUSIVE MODE")
            table_clone.copy_in_place(connection)
            method = "in place"
        else:
            # Alone, this lock can be in no deadlock, so it may wait its whole time: an autovacuum that is in
            # the way gives up only when somebody has waited longer than deadlock_timeout.
            allow_whole_lock_wait(connection)
            table_clone.run(connection, f"LOCK TABLE {LIVE} IN ACCESS EXCLUSIVE MODE")
            bound_lock_wait(connection)
            table_clone.run(connection, f"LOCK TABLE {NEXT} IN ACCESS EXCLUSIVE MODE")
            table_clone.rename_into_place(connection, index_names)
            method = "swap"
        generations.record_live(connection, self.shared.generation_id, **counts)
        self.on_stage("swapping")
        return method


def _why_archived(day: date, live: Generation, newest: date) -> str:
    """Why lists of that day do not replace what is live; empty if they do.

    After a rollback a day between the restored one and the one that was rolled back is a day of the past
    like before: a backfill of it must not undo what somebody has decided.
    """
    if day < live.partition_date:
        return (
            f"Partition {day} is older than the live one, {live.partition_date} (generation {live.id}), "
            "which was kept."
        )
    if live.restored_from is not None and live.partition_date < day < newest:
        return (
            f"Partition {day} is older than {newest}, the newest that was ever live; {live.partition_date} "
            f"(generation {live.id}), which a rollback made live again, was kept. `reco rollback --partition "
            f"{day}` makes these lists live."
        )
    return ""


def _check_still_live(rollback: Rollback, live: Generation | None) -> None:
    if (live.id if live else None) != rollback.replaces:
        now = f"the lists of {live.partition_date} (generation {live.id})" if live else "nothing"
        raise PublicationRefused(
            f"Another publication came first: now {now} is live, which nobody decided to replace. "
            "Look at it, and roll back again if it should go too."
        )


def _spare_connections(engine: sa.Engine, n: int) -> list[sa.Connection]:
    """At most `n` connections that can be had without waiting; without any the work takes longer."""
    pool = engine.pool
    n_spare = pool.size() - pool.checkedout() if isinstance(pool, QueuePool) else 0
    with suppress(DBAPIError, PoolTimeout):
        return [engine.connect() for _ in range(min(n, n_spare))]
    return []


def _published(generation: Generation) -> Publication:
    return Publication(
        generation.id,
        generation.status,
        generation.partition_date,
        generation.n_users,
        generation.n_recommendations,
        generation.n_carried_over,
        generation.n_dropped,
        generation.dropped_reasons,
        message="The connection was lost during the final commit, which had happened.",
    )


_CLOCK = sa.text("SELECT clock_timestamp()")
