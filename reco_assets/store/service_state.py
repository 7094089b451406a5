"""What the service's health rests on: schema, live generation, a server that writes. Async."""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

_STATE = """
SELECT (SELECT version_num FROM reco_alembic_version) AS revision,
       NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off' AS writable,
       g.id, g.model_version, g.published_at, g.n_users, g.n_recommendations
FROM (SELECT) AS one
LEFT JOIN recommendation_generations g ON g.status = 'live'
"""


@dataclass(frozen=True)
class LiveLists:
    """The generation that readers see."""

    generation_id: UUID
    model_version: str | None
    published_at: datetime
    n_users: int
    n_recommendations: int


@dataclass(frozen=True)
class ServiceState:
    """What the database says about itself.

    Attributes:
        revision: of the schema; None in an empty version table.
        writable: whether the server takes events; false on a standby.
        live: None before the first publication.
    """

    revision: str | None
    writable: bool
    live: LiveLists | None


@lru_cache(maxsize=1)
def needed_revision() -> str:
    """The schema's revision that this package needs; the first call takes a second, for loading alembic."""
    from reco_assets.store import migrate

    return migrate.head()


async def service_state(connection: "AsyncConnection[TupleRow]") -> ServiceState:
    """Ask once; two single rows, by index.

    Raises: as the driver does, when the tables are missing.
    """
    row = await (await connection.execute(_STATE)).fetchone()
    assert row is not None
    revision, writable, *live = row
    return ServiceState(revision, writable, LiveLists(*live) if live[0] is not None else None)
