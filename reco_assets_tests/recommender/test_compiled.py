import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest

from reco_assets.recommender import compiled as compiled_module
from reco_assets.recommender.compiled import compiled


def test_loops_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def no_cache(*functions: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available for file")
        return njit(*functions, **options)

    monkeypatch.setattr(numba, "njit", no_cache)

    @compiled
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == 8


def test_changed_code_that_another_file_calls_is_compiled_again(tmp_path: Path) -> None:
    package = tmp_path / "loops"
    package.mkdir()
    shutil.copy(compiled_module.__file__, package / "compiled.py")
    (package / "__init__.py").touch()
    (package / "outer.py").write_text(
        "from loops.compiled import compiled\nfrom loops.inner import inner\n\n"
        "@compiled\ndef outer(x):\n    return inner(x) + 1\n"
    )

    def answer(factor: int) -> int:
        (package / "inner.py").write_text(
            f"from loops.compiled import compiled\n\n@compiled\ndef inner(x):\n    return x * {factor}\n"
        )
        command = [sys.executable, "-c", "from loops.outer import outer; print(outer(10))"]
        return int(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout)

    assert [answer(2), answer(30)] == [21, 301]


def test_a_cache_that_names_a_class_which_has_gone_is_compiled_anew(tmp_path: Path) -> None:
    package = tmp_path / "loops"
    package.mkdir()
    shutil.copy(compiled_module.__file__, package / "compiled.py")
    (package / "__init__.py").touch()

    def answer(name: str) -> int:
        (package / "sums.py").write_text(
            "from typing import NamedTuple\nfrom loops.compiled import compiled\n\n"
            f"class {name}(NamedTuple):\n    left: int\n    right: int\n\n"
            "@compiled\ndef total(pair):\n    return pair.left + pair.right\n\n"
            f"answer = total({name}(2, 3))\n"
        )
        command = [sys.executable, "-c", "from loops.sums import answer; print(answer)"]
        return int(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout)

    assert [answer("Pair"), answer("Couple")] == [5, 5]
