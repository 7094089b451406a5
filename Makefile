# Two commands are all a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
export PYTHON
RUN = .venv/bin/python -m

.PHONY: help demo test dev lint format lock clean

help:
	@echo "make demo    from an empty machine to published recommendations, with a report"
	@echo "make test    the whole suite: linters, types, import contracts, tests"
	@echo "make dev     Dagster UI, daemon and MLflow UI on the demo's data"
	@echo "make lint    ruff, mypy and the import contracts only"
	@echo "make format  ruff's formatter over the tree"
	@echo "make lock    resolve pyproject.toml into requirements.lock"
	@echo "make clean   remove .venv and every piece of local state (.reco)"

.venv/.synced: requirements.lock requirements-bootstrap.lock pyproject.toml scripts/sync-venv.sh
	@scripts/sync-venv.sh

demo: .venv/.synced
	@$(RUN) reco_assets demo

dev: .venv/.synced
	@$(RUN) reco_assets dev

test: .venv/.synced
	@$(RUN) reco_assets test

lint: .venv/.synced
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	.venv/bin/lint-imports

format: .venv/.synced
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

lock: .venv/.synced
	.venv/bootstrap/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
		--quiet --no-header --extra test pyproject.toml -o requirements.lock

clean:
	@if [ -f .reco/postgres/moved-to ]; then rm -rf "$$(cat .reco/postgres/moved-to)"; fi
	rm -rf .venv .reco
