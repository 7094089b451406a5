"""What starting costs: nothing heavy is loaded before it is needed."""

import json
import subprocess
import sys

import pytest

HEAVY = ("mlflow", "sklearn", "pandas", "numba", "scipy", "pyarrow", "matplotlib", "apprise")


def _loaded_by(statement: str) -> set[str]:
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_loading_the_definitions_loads_no_heavy_library() -> None:
    assert _loaded_by("import reco_assets.definitions") & set(HEAVY) == set()


@pytest.mark.parametrize("module", ["reco_assets.cli", "reco_assets.settings"])
def test_the_command_line_starts_without_dagster(module: str) -> None:
    assert _loaded_by(f"import {module}") & {*HEAVY, "dagster", "sqlalchemy", "numpy"} == set()


def test_the_recommender_loads_neither_dagster_nor_sql_nor_mlflow() -> None:
    loaded = _loaded_by("import reco_assets.recommender.user_knn, reco_assets.recommender.evaluation")
    assert loaded & {"dagster", "sqlalchemy", "psycopg", "mlflow", "pandas", "sklearn"} == set()


def test_the_service_loads_neither_the_pipeline_nor_a_heavy_library() -> None:
    loaded = _loaded_by("import reco_assets.serving.app")
    assert loaded & {*HEAVY, "dagster", "dagster_mlflow", "alembic"} == set()


def test_the_definitions_load_without_any_secret_or_server() -> None:
    statement = "from reco_assets.definitions import defs; defs.get_repository_def().load_all_definitions()"
    assert "dagster" in _loaded_by(statement)
