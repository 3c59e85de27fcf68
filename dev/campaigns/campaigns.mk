# Campaigns: every case of something that `make test` only samples.
CAMPAIGN ?= faults
SHARD ?= 1/1
CASES ?=

.PHONY: coverage
coverage: setup ## [Test] Branch coverage of the bot's risk, orders, state and recovery by its unit and integration tests
	@$(RUN) coverage erase
	@$(RUN) coverage run -m pytest -q tests/unit/test_bot_*.py tests/integration/test_bot_*.py
	@$(RUN) coverage combine -q
	@$(RUN) coverage report

.PHONY: test-exhaustive
test-exhaustive: setup ## [Test] A campaign in full (CAMPAIGN=faults, specs, walks, fuzz, sims, crashes, fleet, mutation, pages or chaos, SHARD=1/4, or CASES=name,...); at most MINUTES=30, resumable
	@$(RUN) python dev/campaigns/run.py $(CAMPAIGN) --shard $(SHARD) --cases "$(CASES)" --minutes $(or $(MINUTES),30)
