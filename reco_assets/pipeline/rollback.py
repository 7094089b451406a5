"""Lists of an earlier day, live again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from reco_assets.errors import MissingUpstream, RecoError
from reco_assets.pipeline.archived_lists import generation_of_archive, read_archive
from reco_assets.recommender.artifact import artifact_digest
from reco_assets.resources.storage import FileStorage
from reco_assets.store.database import transaction
from reco_assets.store.generations import (
    Generation,
    generation,
    generations_of,
    has_unexpired_rows,
    list_generations,
    live_generation,
)
from reco_assets.store.publish import Publication, Rollback, publish

if TYPE_CHECKING:
    from sqlalchemy import Engine

_WAIT_S = 15.0
"""Long enough for the server to notice that a publisher was killed; a publication that works takes longer."""
_LOOKED_THROUGH = 200


@dataclass(frozen=True)
class RolledBack:
    """What became of a rollback.

    Attributes:
        source: The generation that the lists were made for.
        publication: None if they were live already, and not expired.
        live: The generation that the lists are live as.
        replaced: The one that was live before; None if nothing was, or nothing has changed.
        model_problem: Why the service cannot compute with that generation's model; empty if it can.
    """

    source: Generation
    publication: Publication | None
    live: Generation
    replaced: Generation | None
    model_problem: str


@dataclass(frozen=True)
class ArchivedDay:
    """A day whose lists are archived.

    Attributes:
        source: The generation that they were made for; None if they cannot be live again.
        is_live: Whether readers get these very lists now, by their own publication or by a rollback.
        problem: Why they cannot; empty if they can.
    """

    day: date
    source: Generation | None
    is_live: bool = False
    problem: str = ""


def archived_days(engine: "Engine", storage: FileStorage) -> Sequence[ArchivedDay]:
    """The days on record that have a file of lists, whatever state it is in, the newest first."""
    with transaction(engine) as connection:
        live = live_generation(connection)
        newest = list_generations(connection, limit=_LOOKED_THROUGH)
        days = sorted({each.partition_date for each in newest}, reverse=True)
        on_record = {day: generations_of(connection, day) for day in days}
    found = []
    for day in days:
        try:
            source = generation_of_archive(storage.recommendations(day), day, on_record[day])
            is_live = live is not None and source.id in (live.id, live.restored_from)
            found.append(ArchivedDay(day, source, is_live))
        except MissingUpstream:  # removed after RECO_ARCHIVE_DAYS, or never written
            continue
        except RecoError as error:
            found.append(ArchivedDay(day, None, problem=str(error)))
    return found


def roll_back(
    engine: "Engine",
    storage: FileStorage,
    day: date,
    *,
    ttl_hours: float,
    now: datetime,
    say: Callable[[str], None],
    on_stage: Callable[[str], None] = lambda _stage: None,
) -> RolledBack:
    """Publish the day's archived lists, whatever newer day is live; nothing if they are live already.

    Lists that are live but have expired, all of them, are published again.

    They go the way of any publication: posts and users that are gone or hidden, and posts read meanwhile, are
    left out. Rows keep the time that they were computed at and last `ttl_hours` from now on. Of the
    generations that are rolled back no row stays, not even of users whom the older lists do not know.

    Raises:
        MissingUpstream, CorruptArtifact: there is no such archive, or it is not what was published.
        PublicationInProgress: somebody else is publishing.
        PublicationRefused: a check refused these lists, no row of them is left, or another publication
            came first.
        SchemaError, DatabaseBusy, DatabaseUnreachable: as `publish`.
    """
    with transaction(engine) as connection:
        live = live_generation(connection)
        on_record = generations_of(connection, day)
        readable = live is not None and has_unexpired_rows(connection, live.id)
    source, rows = read_archive(storage.recommendations(day), day, on_record)
    problem = _model_problem(storage, source)
    if live is not None and readable and source.id in (live.id, live.restored_from):
        return RolledBack(source, None, live, None, problem)
    publication = publish(
        engine,
        rows,
        partition_date=day,
        generated_at=source.created_at.astimezone(UTC),
        expires_at=now + timedelta(hours=ttl_hours),
        model_version=source.model_version or "unknown",
        mlflow_run_id=source.mlflow_run_id,
        dagster_run_id=source.dagster_run_id,
        model_digest=source.model_digest,
        lists_digest=source.lists_digest,
        rollback=Rollback(source.id, live.id if live else None, now),
        wait_s=_WAIT_S,
        say=say,
        on_stage=on_stage,
    )
    with transaction(engine) as connection:
        # By its id: since the lock was given back somebody else may have published.
        made = generation(connection, publication.generation_id)
    assert made is not None
    return RolledBack(source, publication, made, live, problem)


def _model_problem(storage: FileStorage, source: Generation) -> str:
    """Published lists need no model, live votes do: of the very files that made the lists."""
    directory = storage.model(source.partition_date)
    try:
        if not directory.is_dir():
            return f"{directory} is not there any more"
        if artifact_digest(directory) != source.model_digest:
            return f"{directory} was fitted again since"
    except (RecoError, OSError) as error:  # the lists are not to wait for it
        return str(error).rstrip(".")
    return ""
