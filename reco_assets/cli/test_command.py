"""`reco test`."""

import subprocess
import sys
from pathlib import Path

import click


@click.command("test", context_settings={"ignore_unknown_options": True})
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def command(pytest_arguments: tuple[str, ...]) -> None:
    """Linters, types, import contracts and tests; arguments go to pytest.

    From an installed package only the tests run, because the others check the source tree.

    \b
    reco test
    reco test -k publish -x
    """
    checkout = Path(__file__).resolve().parents[2]
    # Two processes: the tests of the daemon mostly wait. Files stay whole, their fixtures are costly; in the
    # order of the suite's conftest.py, which begins with the longest.
    tests = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    tests += pytest_arguments
    first: list[list[str]] = []
    beside: list[list[str]] = []
    if not (checkout / "pyproject.toml").exists():
        tests += ["--pyargs", "reco_assets_tests"]
        checkout = Path.cwd()
    elif not pytest_arguments:
        ruff = [sys.executable, "-m", "ruff"]
        first = [[*ruff, "check", "."], [*ruff, "format", "--check", "."]]
        # These take a minute of one processor.
        beside = [[sys.executable, "-m", "mypy"], [str(Path(sys.executable).parent / "lint-imports")]]
    for step in first:
        _say(step)
        if code := subprocess.call(step, cwd=checkout):
            sys.exit(code)
    running = [
        (step, subprocess.Popen(step, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        for step in beside
    ]
    _say(tests)
    codes = [subprocess.call(tests, cwd=checkout)]
    for step, process in running:
        said, _ = process.communicate()
        _say(step)
        click.echo(said, nl=False)
        codes.append(process.returncode)
    sys.exit(next((code for code in codes if code), 0))


def _say(step: list[str]) -> None:
    click.secho("$ " + " ".join([Path(step[0]).name, *step[1:]]), bold=True)
