"""A PostgreSQL of the test's own, which it may kill, stop and bring back at the same port."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from reco_assets.local.embedded_postgres import ServerAddress, embedded_postgres
from reco_assets.store import migrate
from reco_assets_tests.ports import quiet_port
from reco_assets_tests.store.conftest import settings_for

DATABASE = "app"


class OwnServer:
    """A server in `directory`; what it has committed survives `kill`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running = ExitStack()
        self._port = quiet_port()
        self.address: ServerAddress | None = None

    @property
    def url(self) -> str:
        assert self.address
        return self.address.url(DATABASE)

    def start(self) -> None:
        # No flush to disk: the system stays up, so what was written to its cache is there.
        options = {"port": str(self._port), "fsync": "off", "full_page_writes": "off"}
        server = embedded_postgres(self._directory, databases=(DATABASE,), options=options)
        self.address = self._running.enter_context(server)

    def kill(self) -> None:
        """As the kernel does when memory runs out: without a word, all processes of the server."""
        assert self.address
        os.killpg(self.address.pid, signal.SIGKILL)
        self._running.close()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """All its processes stand still: connections stay open, nothing answers."""
        assert self.address
        stopped = [self.address.pid, *_descendants(self.address.pid)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        self._running.close()

    def query(self, text: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def own_server(directory: Path, *, migrated: bool = True) -> Iterator[OwnServer]:
    server = OwnServer(directory)
    server.start()
    try:
        if migrated:
            migrate.upgrade(settings_for(server.url))
        yield server
    finally:
        server.stop()


def _descendants(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found
