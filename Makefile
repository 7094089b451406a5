# Two commands are all a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
export PYTHON
RUN = .venv/bin/python -m

.PHONY: help demo test dev lint format lock clean bench bench-serving bench-docs bench-lock screenshots

help:
	@echo "make demo    from an empty machine to published recommendations, with a report"
	@echo "make test    the whole suite: linters, types, import contracts, tests"
	@echo "make dev     Dagster UI, daemon, MLflow UI and the service on the demo's data"
	@echo "make lint    ruff, mypy and the import contracts only"
	@echo "make format  ruff's formatter over the tree"
	@echo "make lock    resolve pyproject.toml into requirements.lock and, for the image, requirements-runtime.lock"
	@echo "make bench   speed beside other libraries, with tables; SIZES=\"S M L\" JSON=file; benchmarks/README.md"
	@echo "make bench-serving   how fast the service answers and stores; JSON=file"
	@echo "make screenshots     the pictures in docs/images, of the demo page on the demo's data"
	@echo "make clean   remove .venv and every piece of local state (.reco)"

.venv/.synced: requirements.lock requirements-bootstrap.lock pyproject.toml scripts/sync-venv.sh
	@scripts/sync-venv.sh

demo: .venv/.synced
	@$(RUN) reco_assets demo

dev: .venv/.synced
	@$(RUN) reco_assets dev

test: .venv/.synced
	@scripts/ensure-chromium.sh
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
	@# The very same versions without the tests' packages; hatchling builds this package in the image.
	echo hatchling | .venv/bootstrap/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
		--quiet --no-header --constraint requirements.lock pyproject.toml - -o requirements-runtime.lock

# RecTools has an environment of its own; where it cannot be installed, the rest runs without it.
bench: .venv-bench/.synced
	@$(MAKE) --no-print-directory .venv-bench-rectools/.synced || echo "RecTools is left out."
	@.venv-bench/bin/python -m benchmarks $(if $(SIZES),--sizes $(SIZES)) $(if $(FEEDS),--feeds $(FEEDS)) \
		$(if $(PARTS),--parts $(PARTS)) $(if $(ALONE),--alone) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(JSON),--json $(JSON))

bench-serving: .venv/.synced
	@$(RUN) benchmarks.serving $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(JSON),--json $(JSON))

bench-docs: .venv/.synced
	@$(RUN) benchmarks.docs_tables $(JSON)

.venv-bench/.synced: .venv/.synced benchmarks/requirements.lock scripts/sync-bench-venv.sh
	@scripts/sync-bench-venv.sh .venv-bench benchmarks/requirements.lock

.venv-bench-rectools/.synced: .venv/.synced benchmarks/requirements-rectools.lock scripts/sync-bench-venv.sh
	@scripts/sync-bench-venv.sh .venv-bench-rectools benchmarks/requirements-rectools.lock

# The peers beside the very versions that requirements.lock has.
bench-lock: .venv/.synced
	.venv/bootstrap/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --quiet --no-header \
		--constraint requirements.lock pyproject.toml benchmarks/requirements.in -o benchmarks/requirements.lock
	.venv/bootstrap/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --quiet --no-header \
		benchmarks/requirements-rectools.in -o benchmarks/requirements-rectools.lock

screenshots: .venv/.synced
	@scripts/ensure-chromium.sh
	@.venv/bin/python scripts/screenshots.py

clean:
	@if [ -f .reco/postgres/moved-to ]; then rm -rf "$$(cat .reco/postgres/moved-to)"; fi
	rm -rf .venv .venv-bench .venv-bench-rectools .reco
