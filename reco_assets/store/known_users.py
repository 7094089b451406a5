"""Which users the app has. Async."""

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow


async def known_users(connection: "AsyncConnection[TupleRow]", user_ids: Iterable[UUID]) -> frozenset[UUID]:
    """Those of `user_ids` that are there."""
    # One text without a type: the server reads it as an array of whatever the column is.
    array = "{" + ",".join(map(str, user_ids)) + "}"
    cursor = await connection.execute("SELECT id::text FROM users WHERE id = ANY(%s)", (array,))
    return frozenset(UUID(row[0]) for row in await cursor.fetchall())
