"""The first pass over a file to import: judge every row and count; the database is not needed."""

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Final, Literal
from uuid import UUID, uuid5

import numpy as np

from reco_assets.errors import BadInput
from reco_assets.store.importing_files import SourceFile, open_source
from reco_assets.store.importing_rows import (
    PROJECT_NAMESPACE,
    GoodRows,
    IdBook,
    Reject,
    Rules,
    TimeUnit,
    guess_time_unit,
    judge,
    microseconds,
)

Phase = Literal["checking", "loading"]
Progress = Callable[[Phase, int], None]
"""Told the rows read so far."""

SHOWN_REJECTS: Final = 20


@dataclass(frozen=True)
class ImportOptions:
    """What the user of the command may say about the file.

    Attributes:
        user_column, item_column, type_column, time_column: names in the file; None: guessed.
        title_column, author_column: None: not read.
        constant_type: the type of all rows of a file without a type column.
        type_map: name in the file → known type.
        time_unit: how to read the time; `auto` looks at the first rows.
        namespace: sets apart the ids of two sources that number alike; None: the default one.
        encoding, delimiter: of text files.
        max_bad: most rows that may be refused before the file is, as a number or a percentage.
    """

    user_column: str | None = None
    item_column: str | None = None
    type_column: str | None = None
    time_column: str | None = None
    title_column: str | None = None
    author_column: str | None = None
    constant_type: str | None = None
    type_map: Mapping[str, str] = field(default_factory=dict)
    time_unit: TimeUnit = "auto"
    namespace: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    max_bad: str = "10%"


@dataclass
class Checked:
    """What the first pass found.

    Attributes:
        n_good, n_bad: those that can be loaded, and those refused.
        bad_by_reason: refused rows by reason.
        unknown_types: rows by type name that has no weight and no mapping.
        first_bad: the first refused rows: (row number, reason, value).
        types: good rows by interaction type.
        before_start: good rows before RECO_START_DATE, which no partition will hold.
        first_us, last_us: time span of the good rows, or None without any.
        users, posts: distinct ids among the good rows.
    """

    source: SourceFile
    rules: Rules
    users: IdBook
    posts: IdBook
    n_good: int = 0
    n_bad: int = 0
    bad_by_reason: Counter[str] = field(default_factory=Counter)
    unknown_types: Counter[str] = field(default_factory=Counter)
    first_bad: list[Reject] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)
    before_start: int = 0
    first_us: int | None = None
    last_us: int | None = None

    @property
    def n_rows(self) -> int:
        """Rows read, empty ones aside."""
        return self.n_good + self.n_bad


def check_file(
    path: Path,
    options: ImportOptions,
    *,
    known_types: Mapping[str, float],
    start_date: date,
    now: datetime,
    rejects: Path | None = None,
    progress: Progress | None = None,
) -> Checked:
    """Read the whole file and judge every row; the database is not needed.

    Args:
        path: the file.
        options: what is known about it.
        known_types: the interaction types that have a weight.
        start_date: RECO_START_DATE.
        now: later rows are refused.
        rejects: a CSV to write every refused row to, with its number and reason.
        progress: told the rows read so far.

    Raises:
        BadInput: The file cannot be read, or an option does not fit it.
    """
    wanted = {
        "user": options.user_column,
        "item": options.item_column,
        **({"type": options.type_column} if options.constant_type is None else {}),
        "time": options.time_column,
        "title": options.title_column,
        "author": options.author_column,
    }
    rules = Rules(
        tuple(known_types),
        _known_targets(options, known_types),
        options.constant_type,
        options.time_unit,
        microseconds(now),
    )
    source = open_source(path, wanted, encoding=options.encoding, delimiter=options.delimiter)
    namespace = namespace_of(options)
    checked = Checked(source, rules, IdBook(uuid5(namespace, "user")), IdBook(uuid5(namespace, "post")))
    start_us = microseconds(datetime(start_date.year, start_date.month, start_date.day, tzinfo=UTC))
    with _writable(rejects) if rejects else nullcontext() as file:
        writer = csv.writer(file) if file else None
        if writer:
            writer.writerow(("row", "reason", "value"))
        for chunk in source.chunks():
            if checked.rules.time_unit == "auto" and len(chunk.rows):
                checked.rules = replace(checked.rules, time_unit=guess_time_unit(chunk.columns["time"]))
            rules = checked.rules
            if rules.time_unit == "auto":  # so far only misshapen rows, which have no time to tell from
                rules = replace(rules, time_unit="iso")
            good, bad, unknown = judge(chunk, rules)
            _count(checked, good, bad, unknown, start_us)
            if writer:
                writer.writerows(bad)
            if progress:
                progress("checking", checked.n_rows)
    return checked


def refuse_if_too_bad(checked: Checked, max_bad: str) -> None:
    """Raise unless there are rows to load and few enough bad ones.

    Raises:
        BadInput: with the counts by reason and what to do about them.
    """
    reasons = "; ".join(f"{reason}: {n:,}" for reason, n in checked.bad_by_reason.most_common())
    if not checked.n_good:
        raise BadInput(
            f"{checked.source.path} has no row that can be loaded ({checked.n_rows:,} read"
            + (f"; {reasons})." if reasons else ").")
            + _advice(checked)
        )
    try:
        limit = float(max_bad.removesuffix("%"))
    except ValueError:
        limit = -1.0
    if limit < 0:
        raise BadInput(f"--max-bad is {max_bad!r}; expected a number of rows such as 100, or 5%.")
    allowed = checked.n_rows * limit / 100 if max_bad.endswith("%") else limit
    if checked.n_bad > allowed:
        raise BadInput(
            f"{checked.n_bad:,} of {checked.n_rows:,} rows are bad, more than --max-bad {max_bad} allows; "
            f"nothing was loaded. {reasons}.{_advice(checked)} Or raise --max-bad."
        )


def namespace_of(options: ImportOptions) -> UUID:
    """The namespace that ids of this source get their UUIDs in."""
    return uuid5(PROJECT_NAMESPACE, options.namespace) if options.namespace else PROJECT_NAMESPACE


def _writable(rejects: Path) -> IO[str]:
    try:
        return rejects.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--rejects {rejects} cannot be written: {error.strerror}.") from error


def _known_targets(options: ImportOptions, known_types: Mapping[str, float]) -> Mapping[str, str]:
    known = {name.lower(): name for name in known_types}
    targets = {**options.type_map, **({"--type": options.constant_type} if options.constant_type else {})}
    for name, target in targets.items():
        if target.lower() not in known:
            raise BadInput(
                f"{name}={target}: {target!r} has no weight. Known types: {', '.join(known_types)}. "
                "RECO_INTERACTION_WEIGHTS adds others."
            )
    return options.type_map


def _count(checked: Checked, good: GoodRows, bad: list[Reject], unknown: Counter[str], start_us: int) -> None:
    checked.n_good += len(good.rows)
    checked.n_bad += len(bad)
    # Shapes differ from row to row; as one reason they stay countable.
    checked.bad_by_reason.update(
        "wrong number of columns" if "columns instead of" in reason else reason for _, reason, _ in bad
    )
    checked.unknown_types.update(unknown)
    checked.first_bad += bad[: SHOWN_REJECTS - len(checked.first_bad)]
    if not len(good.rows):
        return
    for code, n in enumerate(np.bincount(good.types, minlength=len(checked.rules.types)).tolist()):
        if n:
            checked.types[checked.rules.types[code]] += n
    checked.before_start += int(np.count_nonzero(good.created_at < start_us))
    low, high = int(good.created_at.min()), int(good.created_at.max())
    checked.first_us = low if checked.first_us is None else min(low, checked.first_us)
    checked.last_us = high if checked.last_us is None else max(high, checked.last_us)
    checked.users.codes(good.users, good.created_at)
    checked.posts.codes(good.items, good.created_at)
    if good.authors is not None:
        named = good.authors.fill_null("")
        written = np.flatnonzero(np.array(named.to_pylist(), dtype=object) != "")
        checked.users.codes(named.take(written), good.created_at[written])


def _advice(checked: Checked) -> str:
    if not checked.unknown_types:
        return ""
    name, n = checked.unknown_types.most_common(1)[0]
    return f" Type {name!r} has {n:,} rows: --map-type {name}=share (or another known type) takes them in."
