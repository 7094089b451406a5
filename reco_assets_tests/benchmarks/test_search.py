"""The whole harness on a tiny feed: as processes, with the contenders that this environment has."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import neighbor_search
from benchmarks.contenders.registry import CHECKOUT, ENTRANTS, OURS, Entrant
from benchmarks.processes import ContenderFailed, ContenderProcess
from benchmarks.report import Report, load_report, parse_markdown
from benchmarks.sizes import Size

SCIPY = next(entrant for entrant in ENTRANTS if entrant.name == "scipy, blocked")
SCIKIT_LEARN = next(entrant for entrant in ENTRANTS if entrant.name.startswith("scikit-learn"))
ABSENT = Entrant("absent", "nowhere:Nobody", modules=("no_such_module",))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, list[str], list[str]]:
    """The report of a run, what it printed and what it said meanwhile."""
    directory = tmp_path_factory.mktemp("search")
    printed: list[str] = []
    said: list[str] = []
    neighbor_search.run(
        Report(directory / "figures.json", printed.append),
        [Size("tiny", 300, 200, 6_000), Size("small", 600, 300, 12_000)],
        ["power-law"],
        (OURS, SCIPY, SCIKIT_LEARN, ABSENT),
        rounds=1,
        threads=2,
        directory=directory,
        say=said.append,
    )
    return load_report(directory / "figures.json"), printed, said


def test_every_contender_has_its_figures(measured: tuple[Report, list[str], list[str]]) -> None:
    report, _, _ = measured
    for size in ("tiny", "small"):
        seconds = report.table(f"seconds/power-law/{size}")
        assert [row["contender"] for row in seconds.rows] == [e.name for e in (OURS, SCIPY, SCIKIT_LEARN)]
        for row in seconds.rows:
            for column in ("neighbours s", "lists s", "total s", "fastest s", "slowest s"):
                assert isinstance(row[column], float)
                assert row[column] > 0
    names = {table.name for table in report.tables}
    assert {"data", "bound", "threads", "growth", "one-user"} <= names


def test_all_found_the_same(measured: tuple[Report, list[str], list[str]]) -> None:
    rows = measured[0].table("beside-ours/power-law/small").rows
    assert [(row["as good %"], row["posts as good %"]) for row in rows] == [(100, 100)] * 3
    assert [(row["same neighbours %"], row["same posts %"]) for row in rows[:1]] == [(100, 100)]


def test_ratios_are_positive_and_ours_is_one(measured: tuple[Report, list[str], list[str]]) -> None:
    table = measured[0].table("beside-ours/power-law/tiny")
    for column in table.ratios:
        assert table.rows[0][column] == 1.0
        assert all(isinstance(row[column], float) and row[column] > 0 for row in table.rows)
    assert all(isinstance(row["bound / ours"], float) for row in measured[0].table("bound").rows)


def test_one_user_is_served_from_the_fit_and_from_a_history_of_now(
    measured: tuple[Report, list[str], list[str]],
) -> None:
    rows = measured[0].table("one-user").rows
    assert [str(row["what"]).split(":")[0] for row in rows] == ["recommend", "fold_in"] * 2
    for row in rows:
        p50, p99, slowest = (row[column] for column in ("p50 ms", "p99 ms", "slowest ms"))
        assert isinstance(p50, float)
        assert isinstance(p99, float)
        assert isinstance(slowest, float)
        assert 0 < p50 <= p99 <= slowest


def test_json_and_print_are_the_same(measured: tuple[Report, list[str], list[str]]) -> None:
    report, printed, _ = measured
    assert len(printed) == len(report.tables)
    for table, text in zip(report.tables, printed, strict=True):
        assert parse_markdown(text) == list(table.rows)


def test_who_is_not_installed_is_named(measured: tuple[Report, list[str], list[str]]) -> None:
    report, _, said = measured
    assert any("left out: absent, no_such_module not installed" in line for line in said)
    (note,) = (n for n in report.table("seconds/power-law/tiny").notes if n.startswith("Left out here"))
    assert "absent (no_such_module not installed" in note


def test_a_contender_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ContenderFailed, match="ours failed at load: FileNotFoundError"):
        ContenderProcess(OURS, tmp_path, 1)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--sizes", "S", "--feeds", "demo", "--parts", "search"]
    command += ["--alone"]
    with subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        children: list[psutil.Process] = []
        while not children and process.poll() is None:
            time.sleep(0.05)
            children = [
                p for p in psutil.Process(process.pid).children() if "benchmarks.worker" in p.cmdline()
            ]
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "Interrupted" in said
    assert children
    assert not any(child.is_running() for child in children)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker", SCIPY.path, str(tmp_path), "1"],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdin is not None
        try:
            worker.stdin.close()
            assert worker.wait(timeout=60) == 0
        finally:
            worker.kill()
