"""Tracked events into `user_interactions`: many in one statement, each with an answer of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

import psycopg
from psycopg import sql

from reco_assets.errors import DatabaseBusy, SchemaError

Outcome = Literal["stored", "duplicate", "unknown_post", "unknown_user", "refused"]
"""`refused`: the app's own rules (a constraint, a trigger) do not let PostgreSQL take the event."""

_ATTEMPTS: Final = 5
_ABOUT_THE_ROW: Final = ("22", "23", "44", "P0")
"""Classes of errors: the data, a constraint, a view's check, what a trigger raises."""
_ABOUT_THE_SERVER: Final = ("53", "58")
"""Classes of errors: it has too little of something; its system fails."""

_COLUMNS: Final = ("id", "user_id", "post_id", "interaction_type", "metadata")
_TYPES: Final = """
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
WHERE a.attrelid = to_regclass('user_interactions') AND a.attnum > 0 AND NOT a.attisdropped
"""
# The look-ups are subqueries of their own (LIMIT), so that the planner has no choice but the primary keys:
# its guess at the length of an array must never lead to a scan of all users. (EXISTS would be hashed.)
_INSERT: Final = """
INSERT INTO user_interactions (id, user_id, post_id, interaction_type, created_at, metadata)
SELECT g.id, u.id, p.id, g.interaction_type::{interaction_type}, now(), g.metadata::{metadata}
FROM unnest(%b::{id}[], %b::{user_id}[], %b::{post_id}[], %b::text[], %b::text[])
     AS g (id, user_id, post_id, interaction_type, metadata)
CROSS JOIN LATERAL (SELECT id FROM users WHERE id = g.user_id LIMIT 1) u
CROSS JOIN LATERAL (SELECT id FROM posts WHERE id = g.post_id LIMIT 1) p
ORDER BY g.id
ON CONFLICT (id) DO NOTHING
RETURNING id
"""
_LOOK: Final = """
SELECT (SELECT id FROM user_interactions WHERE id = g.id LIMIT 1) IS NOT NULL,
       (SELECT id FROM users WHERE id = g.user_id LIMIT 1) IS NOT NULL,
       (SELECT id FROM posts WHERE id = g.post_id LIMIT 1) IS NOT NULL
FROM unnest(%b::{id}[], %b::{user_id}[], %b::{post_id}[]) WITH ORDINALITY AS g (id, user_id, post_id, n)
ORDER BY g.n
"""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event as it was accepted.

    Attributes:
        id: the client's, or made by the service; what makes a second try harmless.
        user_id: who did it.
        post_id: to what.
        interaction_type: one of the tracked types.
        metadata: JSON text in UTF-8, or None.
    """

    id: UUID
    user_id: UUID
    post_id: UUID
    interaction_type: str
    metadata: bytes | None


def is_refusal(error: psycopg.Error) -> bool:
    """Whether one of the rows is to blame, and the others could be stored without it."""
    return (error.sqlstate or "").startswith(_ABOUT_THE_ROW)


def is_trouble(error: psycopg.Error) -> bool:
    """Whether the server is in a state that passes, and the same rows can be stored later."""
    return (error.sqlstate or "").startswith(_ABOUT_THE_SERVER)


class EventTable:
    """`user_interactions` as it is in this database: ids may be `uuid` or `text`, the type an enum."""

    def __init__(self, types: dict[str, str]) -> None:
        names = {name: sql.SQL(types[name]) for name in _COLUMNS}
        self.insert = sql.SQL(_INSERT).format(**names).as_bytes(None)
        self.look = sql.SQL(_LOOK).format(**names).as_bytes(None)
        self._ids_are_text = tuple(types[name] != "uuid" for name in _COLUMNS[:3])

    @classmethod
    async def read(cls, connection: psycopg.AsyncConnection[Any]) -> "EventTable":
        """Look at the table.

        Raises:
            SchemaError: it or a column is missing.
        """
        types = dict(await (await connection.execute(_TYPES)).fetchall())
        if missing := [name for name in _COLUMNS if name not in types]:
            raise SchemaError(f"user_interactions lacks {', '.join(missing)}. Run `reco migrate`.")
        return cls(types)

    def ids(self, events: Sequence[NewEvent]) -> list[list[UUID] | list[str]]:
        """The columns id, user_id and post_id, in the types of the table."""
        columns = ([e.id for e in events], [e.user_id for e in events], [e.post_id for e in events])
        return [
            list(map(str, column)) if text else column
            for column, text in zip(columns, self._ids_are_text, strict=True)
        ]


async def insert_events(
    connection: psycopg.AsyncConnection[Any], table: EventTable, events: Sequence[NewEvent]
) -> list[Outcome]:
    """Store the events, each once; in autocommit they are committed when this returns.

    An id that is there already is a duplicate. Of an id that occurs several times here, the first event
    counts whose user and post exist. Rows are inserted in the order of their ids, so that two
    of these statements wait for each other in one direction only.

    Raises:
        DatabaseBusy: users or posts kept disappearing and coming back meanwhile.
    """
    outcomes: list[Outcome | None] = [None] * len(events)
    left = list(range(len(events)))
    attempts = 0
    while left:
        first: dict[int, int] = {}
        later = [index for index in left if first.setdefault(events[index].id.int, index) != index]
        chosen = list(first.values())
        again = []
        for index, outcome in zip(
            chosen, await _insert_once(connection, table, [events[i] for i in chosen]), strict=True
        ):
            outcomes[index] = outcome
            if outcome is None:
                again.append(index)
        if again and (attempts := attempts + 1) == _ATTEMPTS:
            raise DatabaseBusy(f"Users or posts of {len(again)} events changed {_ATTEMPTS} times meanwhile.")
        left = again
        for index in later:
            before = first[events[index].id.int]
            outcome = outcomes[before]
            if outcome in ("stored", "duplicate"):
                outcomes[index] = "duplicate"
            elif outcome is not None and _same(events[before], events[index]):
                outcomes[index] = outcome
            else:
                left.append(index)
    return [outcome for outcome in outcomes if outcome is not None]


async def _insert_once(
    connection: psycopg.AsyncConnection[Any], table: EventTable, events: list[NewEvent]
) -> list[Outcome | None]:
    """One statement over distinct ids; None where things changed meanwhile and it is worth another try."""
    ids = table.ids(events)
    types = [event.interaction_type for event in events]
    metadata = [None if e.metadata is None else e.metadata.decode() for e in events]
    try:
        cursor = await connection.execute(table.insert, (*ids, types, metadata), binary=True)
    except psycopg.errors.ForeignKeyViolation:
        return [None] * len(events)  # deleted between our look and the server's check
    if cursor.rowcount == len(events):
        return ["stored"] * len(events)
    stored = {UUID(str(row[0])) for row in await cursor.fetchall()}
    missing = [index for index, event in enumerate(events) if event.id not in stored]
    cursor = await connection.execute(table.look, table.ids([events[index] for index in missing]))
    outcomes: list[Outcome | None] = ["stored"] * len(events)
    for index, (is_there, has_user, has_post) in zip(missing, await cursor.fetchall(), strict=True):
        if is_there:
            outcomes[index] = "duplicate"
        elif not has_user:
            outcomes[index] = "unknown_user"
        else:
            outcomes[index] = None if has_post else "unknown_post"
    return outcomes


def _same(one: NewEvent, other: NewEvent) -> bool:
    return one.user_id == other.user_id and one.post_id == other.post_id
