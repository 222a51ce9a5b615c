# Two commands are enough: `make run` for one complete run on demo data, `make test` for every test.
.DEFAULT_GOAL := help
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
PYTHON ?= python3
export UV_PYTHON ?= $(PYTHON)
export UV_PYTHON_DOWNLOADS ?= never

.PHONY: help setup setup-dev run airflow health test setup-aws test-aws lint format bench clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

.uv/bin/uv:
	@command -v uv >/dev/null 2>&1 || { $(PYTHON) -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check uv; }

setup: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv) ## Install the command at .venv/bin/catalunya
	@$(UV) sync --frozen --quiet --no-dev --inexact

setup-dev: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv)
	@$(UV) sync --frozen --quiet --inexact --group airflow

run: setup ## One complete run on demo data, from the portals to a release
	@ENVIRONMENT=demo .venv/bin/catalunya run

airflow: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv) ## Airflow without containers: http://localhost:8080, airflow/airflow
	@$(UV) sync --frozen --quiet --no-dev --inexact --group airflow
	@exec .venv/bin/python orchestration/scripts/airflow_local.py

health: ## Airflow, portals, lake and dbt: is everything well?
	@ENVIRONMENT=$${ENVIRONMENT:-demo} .venv/bin/python orchestration/scripts/health_check.py

test: setup-dev ## Every test that needs no container engine
	@.venv/bin/pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

setup-aws: setup-dev
	@$(UV) sync --frozen --quiet --inexact --group airflow --group athena --group trino
	@.venv/bin/python -m standin --install

test-aws: setup-aws ## Trino and Athena on a local stand-in: its own tests, production runs, every mart on every engine
	@CATALUNYA_REQUIRE_ALL=1 .venv/bin/pytest -n 0 -m aws $(PYTEST_ARGS)

lint: setup-dev ## ruff, mypy, sqlfluff, and the cards
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/sqlfluff lint --processes 2 --disable-progress-bar dbt/mart
	@.venv/bin/catalunya datasets check
	@.venv/bin/catalunya datasets generate --check

format: setup-dev ## Format the Python
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: setup-dev ## Measure staging, orchestration and fetch against their bounds
	@.venv/bin/python bench/stage.py
	@.venv/bin/python bench/orchestration.py
	@.venv/bin/python bench/fetch.py

clean: ## Remove the environment and caches, never the lake
	@rm -rf .venv .uv .airflow .pytest_cache .mypy_cache .ruff_cache dbt/mart/target dbt/mart/logs
