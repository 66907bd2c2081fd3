# What people type. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
UV := UV_SYSTEM_CERTS=1 .venv/bin/uv
SERVICES := $(wildcard services/*/pyproject.toml)
INSTALL_VENV = { [ $$(id -u) = 0 ] && apt-get -qq update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y python3-venv >/dev/null; } 2>/dev/null \
	|| { echo "headrace: $(PYTHON) lacks venv or ensurepip: install them (Debian: apt-get install python3-venv)" >&2; exit 1; }

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/installed ## install everything into .venv and .headrace/cache

.venv/bin/uv: locks/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "headrace: $(PYTHON) must be Python 3.11 or newer; name another with make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || $(INSTALL_VENV)
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r <(sed -n '/^uv==/,/^[^ ]/p' locks/dev.txt | sed '$$d')
	@touch $@

.venv/installed: .venv/bin/uv locks/dev.txt $(SERVICES) services/stack/headrace_stack/kafka/pom.xml
	$(UV) pip sync --quiet --compile-bytecode --python .venv/bin/python locks/dev.txt
	$(UV) pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation $(foreach s,$(SERVICES),-e $(dir $(s)))
	.venv/bin/python -m headrace_stack.prepare
	@touch $@

up: setup ## start the embedded stack
	.venv/bin/headrace up

down: ## stop it
	.venv/bin/headrace down

demo: setup ## the whole loop on a crowd whose taste moves, told live; CI=1 tells it once and checks it
	.venv/bin/headrace demo $(if $(CI),--ci)

test: setup ## what CI runs
	.venv/bin/python -m pytest -m "not long" --durations=20

test-all: setup ## the long tests as well
	.venv/bin/python -m pytest

check: setup ## lint, format, types, imports, protos
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy services/*/headrace_* load_tests monitoring tests docs
	.venv/bin/lint-imports
	.venv/bin/buf lint
	.venv/bin/buf breaking --against protos/baseline.binpb

bench: setup ## figures of the streams, as JSON
	.venv/bin/python -m load_tests.streams.joiner_bench
	.venv/bin/python -m load_tests.streams.features_bench

pictures: setup ## take docs/pictures anew, from a demo of four minutes
	.venv/bin/python docs/pictures/record.py

images: setup ## build every service's image, print the sizes; BASE=debian without a registry of images, NETWORK=host where there is no bridge
	.venv/bin/python -m headrace_stack.images $(if $(BASE),--base $(BASE)) $(if $(NETWORK),--network $(NETWORK)) $(SERVICE)

protos: setup ## generate the messages' code anew
	.venv/bin/python -m headrace_stack.protos

baseline: setup ## at a release: what later changes of protos are compared with
	.venv/bin/buf build -o protos/baseline.binpb

reference: setup ## write docs/settings.md, docs/metrics.md and Grafana's dashboards anew
	.venv/bin/python -m headrace_stack.reference
	.venv/bin/python -m monitoring.dashboards

lock: ## pin everything anew
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 locks/dev.in --override locks/overrides.txt -o locks/dev.txt
	.venv/bin/python -m headrace_stack.locks

clean: ## stop the stack and remove everything that a set-up or a run made
	@if [ -x .venv/bin/headrace ]; then .venv/bin/headrace down; fi
	rm -rf .venv .headrace .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.PHONY: help setup up down demo test test-all check bench pictures protos baseline reference lock clean
