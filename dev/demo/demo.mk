# The demo: the whole path on a local Kubernetes.
MARKET ?= synthetic

.PHONY: demo
demo: setup ## [Start] The whole path on a local Kubernetes; MARKET=capture:DIR for recorded data
	@$(RUN) python dev/demo/demo.py --market $(MARKET)

.PHONY: demo-down
demo-down: setup ## [Start] Remove the demo's cluster and all that ran in it
	@dev/cluster/cluster down

.PHONY: bench
bench: setup ## [Test] The operator with 1,000 TradingBots beside StatefulSets, 25 minutes (SHORT=1: 8), or ONLY=loads|fleet COUNTS="100 500" REPEAT=1
	@PYTHONPATH=tests:dev/cluster $(RUN) python tests/performance/measure_scale.py \
	  $(if $(SHORT),--short) $(if $(ONLY),--only $(ONLY)) $(if $(COUNTS),--counts $(COUNTS)) $(if $(REPEAT),--repeat $(REPEAT)) \
	  $(if $(SHORT)$(ONLY)$(COUNTS)$(REPEAT),,--write docs/scale-figures.md)

.PHONY: bench-demo
bench-demo: setup ## [Test] Figures of the running demo: safe-mode times, memory, writes
	@$(RUN) python tests/performance/measure_cluster.py

.PHONY: bench-paper-exchange
bench-paper-exchange: setup ## [Test] Figures of the paper exchange: orders, events, a recording, memory (PARTS="orders capture")
	@$(RUN) python tests/performance/measure_paper_exchange.py $(PARTS)

.PHONY: bench-bot
bench-bot: setup ## [Test] Figures of a bot: start, market event to order, memory, growth (PARTS="start soak" MINUTES=60)
	@PYTHONPATH=tests $(RUN) python tests/performance/measure_bot.py $(PARTS) --minutes $(or $(MINUTES),60)

.PHONY: bench-replay
bench-replay: setup ## [Test] Figures of replay: candles a second, reading, start, what limits (CANDLES=FILE)
	@PYTHONPATH=tests $(RUN) python tests/performance/measure_replay.py $(if $(CANDLES),--candles $(CANDLES))

.PHONY: bench-peers
bench-peers: setup ## [Test] The same strategy and candles by freqtrade and nautilus_trader: trades, PnL, speed, memory (REPEAT=3, LIVE=10 for minutes of live orders)
	@PYTHONPATH=tests $(RUN) python tests/performance/measure_peers.py --repeat $(or $(REPEAT),3)
	@if [ -n "$(LIVE)" ]; then PYTHONPATH=tests $(RUN) python tests/performance/measure_peers_live.py --minutes $(LIVE); fi
