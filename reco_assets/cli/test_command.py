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
    # Two processes: the tests of the daemon mostly wait. Files stay whole, their fixtures are costly.
    pytest = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile"]
    steps = [[*pytest, *pytest_arguments]]
    if (checkout / "pyproject.toml").exists():
        if not pytest_arguments:
            bin_directory = Path(sys.executable).parent
            steps = [
                [sys.executable, "-m", "ruff", "check", "."],
                [sys.executable, "-m", "ruff", "format", "--check", "."],
                [sys.executable, "-m", "mypy"],
                [str(bin_directory / "lint-imports")],
                *steps,
            ]
    else:
        steps[0] += ["--pyargs", "reco_assets_tests"]
        checkout = Path.cwd()
    for step in steps:
        click.secho("$ " + " ".join(Path(part).name if part == step[0] else part for part in step), bold=True)
        if code := subprocess.call(step, cwd=checkout):
            sys.exit(code)
