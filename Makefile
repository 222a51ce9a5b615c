# Two commands are enough: `make run` for one complete run on demo data, `make test` for every test.
.DEFAULT_GOAL := help
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
PYTHON ?= python3
export UV_PYTHON ?= $(PYTHON)
export UV_PYTHON_DOWNLOADS ?= never
# Modules are compiled once, not by each of the hundreds of processes that a test of everything starts.
unexport PYTHONDONTWRITEBYTECODE

REQUIREMENTS := $(UV) export --frozen --quiet --no-dev --group airflow --group athena --group trino --no-hashes --no-emit-project --no-header
# Has to be compiled, and so is not in the lock; docs/log-in.md names the same.
PYTHON_LDAP := python-ldap==3.4.8
IMAGE ?= catalunya/airflow
IMAGE_TAG ?= latest
COMPOSE := docker compose --project-directory orchestration --profile scale

# No target is a file, except uv.
.PHONY: $(shell sed -n 's/^\([a-z][a-z-]*\):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

.uv/bin/uv:
	@command -v uv >/dev/null 2>&1 || { $(PYTHON) -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check uv; }

setup: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv) ## Install the command at .venv/bin/catalunya
	@$(UV) sync --frozen --quiet --no-dev --inexact

setup-dev: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv)
	@$(UV) sync --frozen --quiet --inexact --group airflow

run: setup ## One complete run on demo data, from the portals to a release
	@ENVIRONMENT=demo .venv/bin/catalunya run

site: setup ## The public site of that release, at http://127.0.0.1:8081/
	@ENVIRONMENT=demo .venv/bin/catalunya site build
	@ENVIRONMENT=demo exec .venv/bin/catalunya site serve

airflow: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv) ## Airflow without containers: http://localhost:8080, airflow/airflow
	@$(UV) sync --frozen --quiet --no-dev --inexact --group airflow
	@exec .venv/bin/python -m orchestration.scripts.airflow_local

up: ## The stack in containers: http://localhost:8080, airflow/airflow
	@orchestration/scripts/up.sh $(UP_ARGS)

down: ## Stop the stack; its data stay
	@$(COMPOSE) down --remove-orphans

logs: ## Follow the logs of the stack
	@$(COMPOSE) logs --follow --tail 100

health: ## Check Airflow, portals, lake and dbt, in the stack or on this machine
	@if [ -n "$$($(COMPOSE) ps --quiet 2>/dev/null)" ]; then \
	    $(COMPOSE) ps --all && $(COMPOSE) run --rm --no-deps --quiet-pull -T airflow-scheduler \
	        python orchestration/scripts/health_check.py --url http://airflow-apiserver:8080; \
	else \
	    ENVIRONMENT=$${ENVIRONMENT:-demo} .venv/bin/python orchestration/scripts/health_check.py; \
	fi

backup: $(if $(DATABASE_URL),setup) ## Metadata database, lake and secrets into TO=FOLDER; the newest KEEP=7 are kept
	@$(PYTHON) -m orchestration.scripts.backup "$(or $(TO),backups)" --keep "$(or $(KEEP),7)"

restore: $(if $(DATABASE_URL),setup) ## A backup, FROM=FOLDER/20261127T031500Z, on an empty machine; FORCE=yes restores over what is there
	@$(PYTHON) -m orchestration.scripts.restore "$(or $(FROM),FROM=)" $(if $(filter yes,$(FORCE)),--force)

test: setup-dev ## Every test that needs no container engine
	@.venv/bin/pytest -n 3 --dist loadgroup -m "not stack and not aws and not site_tools" $(PYTEST_ARGS)

test-fast: setup-dev ## The tests of a minute, for every save: no Airflow, no browser, no build of the dbt project
	@.venv/bin/pytest -n 2 -m "not stack and not aws and not site_tools and not slow" $(PYTEST_ARGS)

setup-site: setup-dev
	@command -v npm >/dev/null || { echo "npm is missing; install Node.js 20.19 or newer" >&2; exit 1; }
	@cd tests/site && npm ci --silent --no-audit --no-fund

test-site: setup-site ## The public site by axe-core, html-validate and Lighthouse: needs Chromium and Node.js
	@CATALUNYA_REQUIRE_ALL=1 .venv/bin/pytest -n 0 -m site_tools tests/site $(PYTEST_ARGS)

test-slow: setup-dev ## The tests of `make test` that `make test-fast` leaves out
	@.venv/bin/pytest -n 3 --dist loadgroup -m "slow and not stack and not aws and not site_tools" $(PYTEST_ARGS)

test-ldap: setup-dev ## The log-in of Airflow at OpenLDAP: needs slapd, ldap-utils and a compiler (docs/log-in.md)
	@PATH="$$PATH:/usr/sbin" command -v slapd >/dev/null || { echo "slapd is missing; install the packages that docs/log-in.md names" >&2; exit 1; }
	@$(UV) pip install --quiet --target .artefacts/python-ldap $(PYTHON_LDAP)
	@PYTHONPATH=$(CURDIR)/.artefacts/python-ldap .venv/bin/pytest orchestration/tests/test_ldap.py $(PYTEST_ARGS)

fuzz: setup-dev ## 1,000 odd answers of each kind of portal, through ingest and stage
	@CATALUNYA_FUZZ=3000 .venv/bin/pytest -n 2 tests/fuzz $(PYTEST_ARGS)

setup-deploy: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv)
	@$(UV) sync --frozen --quiet --no-dev --inexact --group infrastructure --group athena

deploy: setup-deploy ## The stack of ENVIRONMENT (production or development) in your account of AWS: docs/aws.md
	@.venv/bin/python -m infrastructure.deploy deploy "$(ENVIRONMENT)"

destroy: setup-deploy ## Take the stack of ENVIRONMENT down; CONFIRM=NAME, DELETE_LAKE=yes and DELETE_TOOLKIT=yes are in docs/aws.md
	@.venv/bin/python -m infrastructure.deploy destroy "$(ENVIRONMENT)" --confirm "$(CONFIRM)" \
	    $(if $(filter yes,$(DELETE_LAKE)),--delete-lake) $(if $(filter yes,$(DELETE_TOOLKIT)),--delete-toolkit)

aws-diff: setup-deploy ## What `make deploy` would change
	@.venv/bin/python -m infrastructure.deploy diff "$(ENVIRONMENT)"

aws-diff-comment: setup-deploy ## The same as a comment on PULL_REQUEST, by GitHub's gh
	@mkdir -p .artefacts && { echo '```'; .venv/bin/python -m infrastructure.deploy diff "$(ENVIRONMENT)" 2>&1; echo '```'; } > .artefacts/diff.md
	@gh pr comment "$(PULL_REQUEST)" --edit-last --create-if-none --body-file .artefacts/diff.md

aws-settings: ## The settings file of ENVIRONMENT, from the variable SETTINGS
	@printf '%s' "$$SETTINGS" > "infrastructure/environments/$(ENVIRONMENT).toml"

aws-outputs: setup-deploy ## The names and addresses of what is deployed
	@.venv/bin/python -m infrastructure.deploy outputs "$(ENVIRONMENT)"

aws-variables: setup-deploy ## The variables by which `catalunya` and an Airflow of yours use the stack
	@.venv/bin/python -m infrastructure.deploy variables "$(ENVIRONMENT)"

aws-airflow: setup-deploy ## The Airflow that runs in AWS, at http://localhost:8080 (AIRFLOW_PORT chooses another port)
	@.venv/bin/python -m infrastructure.deploy airflow "$(ENVIRONMENT)" --port "$(or $(AIRFLOW_PORT),8080)"

aws-alert: setup-deploy ## Send a test message to whoever receives the alerts
	@.venv/bin/python -m infrastructure.deploy alert "$(ENVIRONMENT)"

aws-failed: setup-deploy ## The failed invocations of the functions; EMPTY=yes empties their queues
	@.venv/bin/python -m infrastructure.deploy failed "$(ENVIRONMENT)" $(if $(filter yes,$(EMPTY)),--empty)

aws-release: setup-deploy ## Download the release that readers see, into catalunya-release/ or TO=FOLDER
	@.venv/bin/python -m infrastructure.deploy release "$(ENVIRONMENT)" --to "$(or $(TO),catalunya-release)"

aws-run: setup-deploy ## RUN='catalunya status' with the variables of the stack; ROLE=reader, publish or steward (asks for CODE of MFA)
	@.venv/bin/python -m infrastructure.deploy run --role "$(ROLE)" --mfa "$(MFA)" --code "$(CODE)" "$(ENVIRONMENT)" -- $(RUN)

setup-aws: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv)
	@$(UV) sync --frozen --quiet --inexact --group airflow --group athena --group trino --group infrastructure --group athena-emulator
	@.venv/bin/python -m tools.athena_emulator --install

test-aws: setup-aws ## AWS without an account: templates, functions on an emulator, Athena emulated over Trino, parity
	@CATALUNYA_REQUIRE_ALL=1 .venv/bin/pytest -n 0 -m aws $(PYTEST_ARGS)

package: setup ## The functions for AWS Lambda, as zips in .artefacts/
	@.venv/bin/python -m infrastructure.package

test-stack: setup-dev ## The stack in containers, on a real engine; without one: orchestration/scripts/engine.sh make test-stack
	@.venv/bin/pytest -m stack orchestration/tests/stack $(PYTEST_ARGS)

image: ## The image of Airflow and the pipeline, for this machine: IMAGE and IMAGE_TAG name it
	@docker build --file orchestration/Dockerfile --tag "$(IMAGE):$(IMAGE_TAG)" .

image-push: ## The image for amd64 and arm64, in its registry, with provenance and the packages of its system
	@mkdir -p .artefacts
	@docker buildx build --file orchestration/Dockerfile --platform linux/amd64,linux/arm64 --tag "$(IMAGE):$(IMAGE_TAG)" \
	    --provenance mode=max --sbom true --push --metadata-file .artefacts/image.json .
	@$(PYTHON) -c 'import json; print("digest=" + json.load(open(".artefacts/image.json"))["containerimage.digest"])' \
	    | tee -a "$${GITHUB_OUTPUT:-/dev/null}"

sbom: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv) ## What the image installs from PyPI, as CycloneDX in .artefacts/sbom.cdx.json
	@mkdir -p .artefacts
	@$(UV) export --frozen --quiet --no-dev --group airflow --group athena --group trino --format cyclonedx1.5 \
	    --preview-features sbom-export --output-file .artefacts/sbom.cdx.json > /dev/null

audit: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv) ## Known vulnerabilities of the versions in the lock (asks OSV)
	@$(UV) audit --frozen --preview-features audit

portals: setup ## A run against the live portals; .artefacts/portals/report.md says what changed, if anything did
	@.venv/bin/python -m tools.check_portals

portals-issue: setup ## An issue with that report, by GitHub's gh
	@.venv/bin/python -m tools.check_portals --issue

pages: setup-dev ## The demo site, with the documentation under docs/, in .artefacts/pages
	@ENVIRONMENT=demo .venv/bin/catalunya site build --to .artefacts/demo-site
	@rm -rf .artefacts/pages && cp -RL .artefacts/demo-site/current .artefacts/pages
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet && cp -R .artefacts/docs .artefacts/pages/docs

lint-workflows: setup-dev ## The workflows of GitHub: zizmor, and actionlint by way of Go
	@.venv/bin/zizmor --offline --quiet .github
	@PATH="$(CURDIR)/.venv/bin:$$PATH" go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

lint: setup-dev ## ruff, mypy, hadolint, shellcheck, constructs of newer bash, sqlfluff, the rules of dbt, imports and words, and the definitions
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/hadolint orchestration/Dockerfile orchestration/docker/base/Dockerfile
	@.venv/bin/shellcheck .ci/run orchestration/docker/*.sh orchestration/docker/base/*.sh orchestration/scripts/*.sh infrastructure/*.sh
	@.venv/bin/python tools/check_shell.py
	@.venv/bin/sqlfluff lint --processes 2 --disable-progress-bar dbt/mart
	@CATALUNYA_CANDIDATE=candidate.duckdb .venv/bin/dbt parse --quiet --project-dir dbt/mart --profiles-dir orchestration/dbt
	@.venv/bin/dbt-bouncer run --config-file dbt/dbt-bouncer.yml
	@.venv/bin/catalunya datasets check
	@.venv/bin/catalunya datasets generate --check
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/python tools/check_words.py
	@$(REQUIREMENTS) | diff orchestration/requirements.txt - || { echo "orchestration/requirements.txt is stale: make requirements"; exit 1; }

requirements: $(if $(filter .uv/bin/uv,$(UV)),.uv/bin/uv) ## orchestration/requirements.txt, from the lock
	@$(REQUIREMENTS) > orchestration/requirements.txt

docs: setup-dev ## The documentation as a site in .artefacts/docs; no broken link, nothing loaded from elsewhere
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet && echo "open .artefacts/docs/index.html"

format: setup-dev ## Format the Python
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: setup-dev ## Measure everything that has a bound: the build, staging, fetch, growth, orchestration
	@.venv/bin/python bench

clean: ## Remove the environment and caches, never the lake
	@rm -rf .venv .uv .airflow .pytest_cache .mypy_cache .ruff_cache dbt/mart/target dbt/mart/logs
