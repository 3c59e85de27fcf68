# Campaigns: every case of something that `make test` only samples.
CAMPAIGN ?= faults
SHARD ?= 1/1
CASES ?=

.PHONY: test-exhaustive
test-exhaustive: setup ## [Test] A campaign in full (CAMPAIGN=faults, specs, walks, fuzz, sims or crashes, SHARD=1/4, or CASES=name,...); at most 30 minutes, resumable
	@$(RUN) python dev/campaigns/run.py $(CAMPAIGN) --shard $(SHARD) --cases "$(CASES)"
