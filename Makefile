# Liên Thông. `make` alone lists what there is; PYTHON=python3.12 chooses another Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DATA ?= data/site
OTHERS ?= 1
OTHERS_VENV := .venv-bench
OTHERS_STAMP := $(OTHERS_VENV)/.ready
LOCK := --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate --universal --python-version 3.11

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-kafka test-system audit sbom alerts detection bench chaos mutants lint lock up clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install the command and the tools into .venv (Python 3.11 or newer)

$(STAMP): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make setup PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## Show the whole system on real figures (KEEP=1 leaves the sites up)
	$(BIN)/lienthong demo

up: $(STAMP) ## Start a site under data/site (DATA=folder chooses another)
	$(BIN)/lienthong up --data $(DATA)

test: $(STAMP) ## Run the tests that need nothing but Python
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not demo and not kafka and not system"
	@echo "Not run here: make demo (which judges itself), make test-kafka (Apache Kafka: Java 17 and Maven), make test-system (Debian packages)."

test-kafka: $(STAMP) ## Run the integration and acceptance tests, and what only Kafka has, on Apache Kafka (Java 17, Maven)
	@command -v java >/dev/null && command -v mvn >/dev/null || \
	  { echo "These tests start Apache Kafka: install Java 17 and Maven (Debian: openjdk-17-jre-headless maven)." >&2; exit 1; }
	$(BIN)/python -m tests.on_kafka

test-system: $(STAMP) ## Run the tests that need Debian's packages (each says which one is missing)
	$(BIN)/python -m pytest -m system

bench: $(STAMP) ## Measure beside the floors (ONLY=P1,P3; BUS=embedded needs no Java; SCALE=1; README=1 writes the table; OTHERS= without comparators)
	@test -z "$(OTHERS)" || $(MAKE) --no-print-directory $(OTHERS_STAMP)
	$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(BUS),--bus $(BUS)) $(if $(SCALE),--scale $(SCALE)) $(if $(OTHERS),--others) $(if $(README),--write-readme)

$(OTHERS_STAMP): requirements-bench.txt
	@test -x $(OTHERS_VENV)/bin/python || $(PYTHON) -m venv $(OTHERS_VENV)
	$(OTHERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@

chaos: $(STAMP) ## Break a site at work and judge it (FAULTS=200 SEED=1 BUS=kafka)
	$(BIN)/python -m tests.chaos --faults $(or $(FAULTS),200) --seed $(or $(SEED),1) --bus $(or $(BUS),kafka)

mutants: $(STAMP) ## Take out one mechanism at a time and see its promise's tests fail (ONLY=3 for one promise)
	$(BIN)/python -m tests.mutants $(if $(ONLY),--only $(ONLY))

audit: $(STAMP) ## Ask for known faults of the dependencies; without a network it says 'not run'
	$(BIN)/python -m tests.audit

sbom: $(STAMP) ## Write the bill of materials (build/sbom.json, CycloneDX)
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements --of JSON -o build/sbom.json requirements.txt

alerts: $(STAMP) ## Write the alert rules again as a resource of Kubernetes, after a change in deploy/prometheus/rules.yaml
	$(BIN)/python -m deploy.prometheus.as_kubernetes

detection: $(STAMP) ## Write how long each alert takes into docs/runbooks, from the last run of tests/system/test_alerts.py
	$(BIN)/python -m tests.detection

lint: $(STAMP) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(STAMP) ## Pin the requirements again, with hashes and without index addresses (after a change in pyproject.toml)
	$(BIN)/uv pip compile $(LOCK) pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile $(LOCK) pyproject.toml --extra dev -c requirements.txt -o requirements-dev.txt
	$(BIN)/uv pip compile $(LOCK) requirements-bench.in -o requirements-bench.txt

clean: ## Remove what was built; sites and their data stay
	rm -rf $(VENV) $(OTHERS_VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
