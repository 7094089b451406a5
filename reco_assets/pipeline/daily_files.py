"""Verdicts on the daily files of raw interactions."""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from reco_assets.errors import CorruptArtifact
from reco_assets.events import CREATED_AT, INTERACTION_TYPE, POST_ID, USER_ID
from reco_assets.recommender.interaction_log import MICROSECONDS_PER_DAY
from reco_assets.recommender.quality import Verdict
from reco_assets.resources.storage import FileStorage
from reco_assets.store.day_files import read_day

_TRAILING_DAYS = 7
_NEEDED = (USER_ID, POST_ID, INTERACTION_TYPE, CREATED_AT)


def schema_is_valid(storage: FileStorage, days: Sequence[date], types: Collection[str]) -> Verdict:
    """No nulls, only types that are tracked, and every time within its file's day.

    `read_day` has already refused a file that lacks a column or holds one of another type.
    """
    wrong: Counter[str] = Counter()
    n_rows = 0
    for day in days:
        table = read_day(storage.raw_day(day))
        n_rows += table.num_rows
        wrong.update(_invalid_rows(table, day))
        if unknown := set(table[INTERACTION_TYPE].unique().to_pylist()) - set(types):
            wrong["unknown types"] += len(unknown)
    n_wrong = sum(wrong.values())
    found = ", ".join(f"{count:,} {reason}" for reason, count in wrong.items()) or "nothing wrong"
    message = f"{n_rows:,} rows in {len(days)} files: {found}."
    if n_wrong:
        message += (
            f" Extract again: `reco run --assets raw_interactions --from {min(days)} --to {max(days)}`."
        )
    return Verdict("interactions_have_a_valid_schema", not n_wrong, n_wrong, 0, message)


def read_valid_day(path: Path) -> pa.Table:
    """Who did what with which post and when on a day; no row is invalid, whether or not the check was asked.

    Raises:
        MissingUpstream, CorruptArtifact: see `read_day`; also for nulls and times of another day.
    """
    table = read_day(path, _NEEDED)
    if wrong := _invalid_rows(table, date.fromisoformat(path.stem)):
        found = ", ".join(f"{count:,} {reason}" for reason, count in wrong.items())
        raise CorruptArtifact(
            f"{path} holds {found}. Run `reco run --partition {path.stem} --assets raw_interactions`."
        )
    return table


def _invalid_rows(table: pa.Table, day: date) -> dict[str, int]:
    start_us = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
    times = table[CREATED_AT].cast(pa.int64()).drop_null().to_numpy()
    outside = (times < start_us) | (times >= start_us + MICROSECONDS_PER_DAY)
    counts = {
        "nulls": sum(table[name].null_count for name in _NEEDED),
        "times outside their day": int(outside.sum()) + table[CREATED_AT].null_count,
    }
    return {reason: count for reason, count in counts.items() if count}


def freshness(storage: FileStorage, day: date, limit_hours: float) -> Verdict:
    """Hours between the last interaction and the end of the day."""
    name = "interactions_are_fresh"
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    newest = pc.max(read_day(storage.raw_day(day), (CREATED_AT,))[CREATED_AT]).as_py()
    if newest is None:
        message = (
            f"No interactions at all on {day}. Check that tracking reaches user_interactions: `reco doctor`."
        )
        return Verdict(name, False, 24.0, limit_hours, message)
    hours = (end - newest).total_seconds() / 3600
    message = (
        f"The last interaction of {day} was {hours:.1f} h before its end (limit {limit_hours:g} h), "
        f"at {newest:%H:%M} UTC."
    )
    if hours > limit_hours:
        message += " Check that tracking reaches user_interactions: `reco doctor`."
    return Verdict(name, hours <= limit_hours, hours, limit_hours, message)


def volume(storage: FileStorage, day: date, limit: float) -> Verdict:
    """The day's rows against the mean of the extracted days among the seven before it."""
    name = "interaction_volume_is_usual"
    before = [storage.raw_day(day - timedelta(days=n)) for n in range(1, _TRAILING_DAYS + 1)]
    counts = [read_day(path, ()).num_rows for path in before if path.exists()]
    n_rows = read_day(storage.raw_day(day), ()).num_rows
    if not counts or not sum(counts):
        return Verdict(name, True, 0.0, limit, f"{n_rows:,} rows on {day}; no earlier day to compare with.")
    mean = sum(counts) / len(counts)
    change = abs(n_rows - mean) / mean
    message = (
        f"{n_rows:,} rows on {day} against a mean of {mean:,.0f} over the {len(counts)} days before: "
        f"{change:.0%} changed (limit {limit:.0%})."
    )
    if change > limit:
        message += (
            " Look for a release, an outage or a robot that day; raise RECO_MAX_VOLUME_CHANGE if usual."
        )
    return Verdict(name, change <= limit, change, limit, message)
