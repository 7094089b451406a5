import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from reco_assets.local import embedded_postgres as module
from reco_assets.local.embedded_postgres import embedded_postgres, running_server
from reco_assets_tests.ports import quiet_port


@pytest.fixture
def directory(open_tmp_path: Path) -> Path:
    return open_tmp_path / "postgres"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_last_to_leave_stops_the_server(directory: Path) -> None:
    with embedded_postgres(directory, databases=("app",)) as first:
        with embedded_postgres(directory, databases=("app",)) as second:
            assert second.pid == first.pid
        with psycopg.connect(first.url("app")) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert running_server(directory) is None
    with embedded_postgres(directory) as again, psycopg.connect(again.url("app")) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_server_orphaned_by_kill_9_is_adopted_with_its_rows(directory: Path) -> None:
    script = (
        "import sys, time, psycopg\n"
        "from pathlib import Path\n"
        "from reco_assets.local.embedded_postgres import embedded_postgres\n"
        "with embedded_postgres(Path(sys.argv[1]), databases=('app',)) as server:\n"
        "    with psycopg.connect(server.url('app')) as connection:\n"
        "        connection.execute('CREATE TABLE kept AS SELECT 42 AS answer')\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, directory], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.communicate()
    with embedded_postgres(directory) as adopted, psycopg.connect(adopted.url("app")) as connection:
        assert adopted.pid == pid
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    assert not _alive(pid)


def test_a_killed_server_comes_back_with_every_committed_row(directory: Path) -> None:
    with embedded_postgres(directory, databases=("app",)) as server:
        with psycopg.connect(server.url("app")) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(server.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while running_server(directory) is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        with embedded_postgres(directory) as again, psycopg.connect(again.url("app")) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_directory_only_its_owner_may_enter_is_no_obstacle(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reco_assets.local.embedded_postgres._ROOT_STATE", directory.parent / "state")
    private = directory.parent / "private"
    private.mkdir(mode=0o700)
    with (
        embedded_postgres(private / "postgres", databases=("app",)) as server,
        psycopg.connect(server.url("app")) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_stranger_without_the_password_is_refused(directory: Path) -> None:
    with (
        embedded_postgres(directory) as server,
        pytest.raises(psycopg.OperationalError, match="password"),
    ):
        psycopg.connect(f"postgresql://postgres:guess@127.0.0.1:{server.port}/postgres")


def test_a_parent_that_is_closed_later_does_not_lead_to_a_second_server(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reco_assets.local.embedded_postgres._ROOT_STATE", directory.parent / "state")
    with embedded_postgres(directory) as server:
        directory.parent.chmod(0o700)
        found = running_server(directory)
        directory.parent.chmod(0o755)
        assert found is not None
        assert found.pid == server.pid


def test_the_password_can_be_read_by_its_owner_only_from_the_first_moment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.mkdir()
    (directory / "superuser.password").write_text("left by an interrupted initdb")
    modes: list[int] = []
    token_urlsafe = module.secrets.token_urlsafe

    def look_first(n_bytes: int) -> str:
        modes.append(stat.S_IMODE((directory / "superuser.password").stat().st_mode))
        return token_urlsafe(n_bytes)

    monkeypatch.setattr("secrets.token_urlsafe", look_first)
    umask = os.umask(0)
    try:
        with embedded_postgres(directory) as server:
            assert server.password != "left by an interrupted initdb"
    finally:
        os.umask(umask)
    assert modes == [0o600]
    assert (directory / "superuser.password").stat().st_uid == (directory / "data").stat().st_uid


def test_a_port_that_somebody_took_in_between_leads_to_another_try_on_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = module._free_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        offered = [taken.getsockname()[1]]
        monkeypatch.setattr(module, "_free_port", lambda: offered.pop() if offered else free_port())
        with embedded_postgres(directory) as server:
            assert server.port != taken.getsockname()[1]
    assert offered == []


def test_two_first_users_at_once_both_get_their_databases(directory: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from reco_assets.local.embedded_postgres import embedded_postgres\n"
        "with embedded_postgres(Path(sys.argv[1]), databases=('a', 'b', 'c', 'd')):\n"
        "    pass\n"
    )
    users = [subprocess.Popen([sys.executable, "-c", script, directory]) for _ in range(4)]
    assert [user.wait() for user in users] == [0, 0, 0, 0]
    assert running_server(directory) is None


def test_a_server_comes_back_where_it_was(open_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_free_port", quiet_port)  # one that nobody takes in between
    with embedded_postgres(open_tmp_path) as server:
        port = server.port
    with embedded_postgres(open_tmp_path) as again:
        assert again.port == port
    with socket.create_server(("127.0.0.1", port)), embedded_postgres(open_tmp_path) as elsewhere:
        assert elsewhere.port != port
