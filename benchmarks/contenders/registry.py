"""The contenders of the neighbour search, by the name that the tables show."""

import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from benchmarks.contenders.base import Contender

CHECKOUT: Final = Path(__file__).resolve().parents[2]
RECTOOLS_PYTHON: Final = CHECKOUT / ".venv-bench-rectools" / "bin" / "python"

SAME: Final = "the same"
ITEM_ITEM: Final = "item-item"
OWN_SETTINGS: Final = "other settings"


@dataclass(frozen=True)
class Entrant:
    """A contender and what it takes to start it.

    Attributes:
        name: in tables; ours begin with "ours".
        path: module and class.
        work: `SAME`, or in what it differs.
        modules: what must be importable.
        packages: whose versions are shown.
        slow: takes part in two rounds without a warm-up, and in large feeds for a sample of the users.
        compiles: is run once in a process of its own before, which leaves the machine code on disk: the
            compiler's memory is not the contender's.
        python: the interpreter of an environment of its own.
    """

    name: str
    path: str
    work: str = SAME
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    slow: bool = False
    compiles: bool = False
    python: Path = Path(sys.executable)

    def missing(self) -> str | None:
        """Why it cannot take part here; None if it can."""
        if self.python != Path(sys.executable):
            if not self.python.exists():
                return f"no environment {self.python.parent.parent.name}; `make bench` makes it"
            return None
        absent = [module for module in self.modules if find_spec(module) is None]
        return f"{', '.join(absent)} not installed here; `make bench` has it" if absent else None

    def versions(self) -> dict[str, str]:
        """Installed versions of its packages."""
        if self.python == Path(sys.executable):
            return installed_versions(self.packages)
        code = (
            "from importlib.metadata import version\n"
            f"for name in {self.packages!r}: print(name, version(name))"
        )
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=False)
        return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def make(path: str) -> Contender:
    """An instance of `module:Class`."""
    module, name = path.split(":")
    contender: Contender = getattr(import_module(module), name)()
    return contender


def installed_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


_HERE = "benchmarks.contenders"
OURS: Final = Entrant("ours", f"{_HERE}.ours:Ours", compiles=True)
BOUND: Final = Entrant("scatter-add bound", f"{_HERE}.scatter_bound:ScatterBound", compiles=True)
ENTRANTS: Final = (
    OURS,
    Entrant("ours, BM25 and decay", f"{_HERE}.ours:OursBM25", OWN_SETTINGS, compiles=True),
    Entrant("ours, as shipped (k 200)", f"{_HERE}.ours:OursDefaults", OWN_SETTINGS, compiles=True),
    Entrant(
        "sparse_dot_topn",
        f"{_HERE}.topn:SparseDotTopN",
        modules=("sparse_dot_topn",),
        packages=("sparse-dot-topn",),
    ),
    Entrant(
        "implicit, user-user",
        f"{_HERE}.topn:ImplicitUserUser",
        modules=("implicit", "sparse_dot_topn"),
        packages=("implicit",),
    ),
    Entrant("scipy, blocked", f"{_HERE}.plain:BlockedScipy", packages=("scipy",), slow=True),
    Entrant(
        "scikit-learn, brute force",
        f"{_HERE}.plain:ScikitLearn",
        modules=("sklearn",),
        packages=("scikit-learn",),
        slow=True,
    ),
    Entrant(
        "implicit, item-item",
        f"{_HERE}.item_item:ImplicitItemItem",
        ITEM_ITEM,
        modules=("implicit",),
        packages=("implicit",),
    ),
    Entrant(
        "RecTools, item-item",
        f"{_HERE}.item_item:RecToolsItemItem",
        ITEM_ITEM,
        packages=("rectools", "numpy", "scipy"),
        python=RECTOOLS_PYTHON,
    ),
)
OUR_ENTRANTS: Final = tuple(entrant for entrant in ENTRANTS if entrant.name.startswith(OURS.name))
