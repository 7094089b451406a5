"""PostgreSQL's binary COPY and nothing else: what moving rows takes at least."""

from pathlib import Path
from typing import Any

import psycopg

from benchmarks.contenders.base import Contender, Seconds, Stopwatch, read_options
from benchmarks.database import settings_of
from reco_assets.store.database import native_url

_TABLE = "bare_recommendations"
_CHUNK = 1 << 20


class BareCopy(Contender):
    """The published rows into a table without an index, and the interactions out."""

    def load(self, directory: Path, threads: int) -> None:  # noqa: ARG002  # one session is one thread
        """Take the published rows as the bytes that COPY reads and writes."""
        self._connection = psycopg.connect(native_url(settings_of(read_options(directory))), autocommit=True)
        whole = b"".join(self._rows("user_recommendations"))
        self._bytes = [whole[at : at + _CHUNK] for at in range(0, len(whole), _CHUNK)]

    def run(self) -> Seconds:
        """Both."""
        return {"publish": self.publish()["seconds"], "extract": self.extract()["seconds"]}

    def publish(self) -> dict[str, Any]:
        """A new table, filled and committed; frozen rows, as our publication writes them."""
        self._connection.execute(f"DROP TABLE IF EXISTS {_TABLE}")
        watch = Stopwatch()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {_TABLE} (LIKE user_recommendations)")
            with cursor.copy(f"COPY {_TABLE} FROM STDIN (FORMAT binary, FREEZE)") as copy:
                for chunk in self._bytes:
                    copy.write(chunk)
            rows = cursor.rowcount
        return {"seconds": watch.seconds(), "rows": rows}

    def extract(self) -> dict[str, Any]:
        """All interactions, read and thrown away."""
        watch = Stopwatch()
        columns = "id, user_id, post_id, interaction_type, created_at"
        # A block is a row, but for the trailer and the header, which comes with the first.
        rows = sum(1 for _ in self._rows(f"user_interactions ({columns})")) - 1
        return {"seconds": watch.seconds(), "rows": rows}

    def _rows(self, table: str) -> Any:
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {table} TO STDOUT (FORMAT binary)") as copy,
        ):
            yield from copy
