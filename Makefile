# Targets by group: `make help`.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tradingbot
# What is on the PATH is used as it is; otherwise dev/setup puts it into the cache.
export PATH := $(PATH):$(CACHE)/uv/bin:$(CACHE)/prometheus/usr/bin
UV := uv
RUN := $(UV) run --frozen --no-sync
KINDS := tradingbots tradingbotsets killswitches clusterkillswitches
GENERATED := $(foreach kind,$(KINDS),crds/$(kind).yaml charts/tradingbot-operator/crds/$(kind).yaml) docs/api.md
SOURCES := crds/src operator/src bot/src paper-exchange/src

include $(wildcard dev/*/*.mk)

.PHONY: help
help: ## [Start] This list
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## \[/ { split($$2, part, "] "); group = substr(part[1], 2); \
	  rows[group] = rows[group] sprintf("  %-18s %s\n", $$1, part[2]); \
	  if (!(group in seen)) { seen[group] = 1; order[++n] = group } } \
	  END { for (i = 1; i <= n; i++) printf "%s\n%s", order[i], rows[order[i]] }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## [Start] Install uv where it is missing, and the locked dependencies into .venv
	@dev/setup

.PHONY: test
test: setup ## [Test] All tiers in order, with the time of each; red over 45 minutes
	@$(RUN) python dev/test.py check unit integration cluster e2e

.PHONY: test-check test-unit test-integration test-cluster test-e2e
test-check test-unit test-integration test-cluster test-e2e: setup
	@$(RUN) python dev/test.py $(@:test-%=%)
test-check: ## [Test] Lint, types, layers, generated files
test-unit: ## [Test] Unit tests
test-integration: ## [Test] What needs sockets and processes
test-cluster: ## [Test] What needs a Kubernetes API server
test-e2e: ## [Test] The demo as a test, on a whole cluster

.PHONY: generate
generate: setup ## [Develop] Write the CRDs, the tables of docs/ (api, metrics, values) and the dashboards from the code
	@$(RUN) python -m tradingbot_api.crd $(GENERATED)
	@$(RUN) python dev/reference/metrics_page.py docs/metrics.md
	@$(RUN) python dev/reference/values_page.py docs/values.md
	@$(RUN) python dev/reference/dashboards.py charts/tradingbot-operator/dashboards

.PHONY: format
format: setup ## [Develop] Format and fix what ruff can fix
	@$(RUN) ruff check --fix . && $(RUN) ruff format .

.PHONY: lint
lint: setup ## [Develop] What the check tier runs
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy $(SOURCES)
	@$(RUN) lint-imports
	@$(RUN) python -m tradingbot_api.crd --check $(GENERATED)

.PHONY: hooks
hooks: setup ## [Develop] Install the pre-commit hooks
	@$(RUN) pre-commit install
