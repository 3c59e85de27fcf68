"""The operator's own figures for Prometheus, and the two small HTTP servers that show them and the probes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tradingbot_api import names
from tradingbot_api.conditions import Phase
from tradingbot_operator.sharding import ALONE, Shard

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True, slots=True)
class BotFigures:
    """What the operator tells of one TradingBot; None where it does not know, or where there is nothing to know."""

    namespace: str
    name: str
    phase: str | None
    heartbeat_age: float | None
    """Seconds since the last word of the process that there is."""
    unacknowledged: bool
    """Safe mode is wanted, and SafeModeAcknowledged is not True."""
    unexplained: Mapping[str, Decimal] = field(default_factory=dict)
    """By asset, while BalanceSynced is False for it."""


@dataclass(frozen=True, slots=True)
class SwitchFigures:
    """What the operator tells of one kill switch."""

    kind: str
    namespace: str
    name: str
    active: bool
    bots: int
    unacknowledged: int


@dataclass(frozen=True, slots=True)
class SetFigures:
    """What the operator tells of one TradingBotSet."""

    namespace: str
    name: str
    phases: Mapping[str, int]
    """How many of its bots are in each."""
    rollout_stopped: bool
    limits: Mapping[str, Decimal]
    """By the field of spec.limits."""
    counted: Mapping[str, Decimal]
    """What counts against them; empty without any."""
    daily_loss_reached: bool


class Metrics:
    """All metrics, in a registry of their own.

    `fleet` tells of each TradingBot when it is scraped, in the replica that leads. Labels that an alert counts by begin
    at 0: a rate does not see a counter that is born with its first event.
    """

    def __init__(self, shard: Shard = ALONE) -> None:
        registry = self.registry = CollectorRegistry()
        self.fleet: Callable[[], Iterable[BotFigures]] = tuple
        self.switches: Callable[[], Iterable[SwitchFigures]] = tuple
        self.sets: Callable[[], Iterable[SetFigures]] = tuple
        ProcessCollector(registry=registry)
        registry.register(_FleetCollector(self))
        self.reconciles = Counter(
            "tradingbot_operator_reconciles", "Steps made for TradingBots.", ["result"], registry=registry
        )
        for result in ("done", "failed"):
            self.reconciles.labels(result)
        self.reconcile_seconds = Histogram(
            "tradingbot_operator_reconcile_seconds", "Time of a step.", buckets=LATENCIES, registry=registry
        )
        self.queue_length = Gauge(
            "tradingbot_operator_queue_length", "TradingBots that wait for a step.", registry=registry
        )
        self.api_requests = Counter(
            "tradingbot_operator_api_requests",
            "Requests to the API server.",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self.api_seconds = Histogram(
            "tradingbot_operator_api_seconds", "Time of a request to the API server.", buckets=LATENCIES,
            registry=registry,
        )  # fmt: skip
        self.leader = Gauge(
            "tradingbot_operator_leader",
            "1 in the replica that holds the Lease of its shard and works, else 0. The main operator's shard is empty.",
            ["shard"],
            registry=registry,
        ).labels(shard.name)
        expected = Gauge(
            "tradingbot_operator_shard_expected",
            "1 for each shard that needs an operator, as far as this one knows: the main one (empty), its own, and "
            "those that it leaves bots to.",
            ["shard"],
            registry=registry,
        )
        for name in {"", shard.name, *shard.others}:
            expected.labels(name).set(1)
        self.event_loop_lag_seconds = Histogram(
            "tradingbot_operator_event_loop_lag_seconds",
            "How much later than asked for the event loop came round, looked at ten times a second.",
            buckets=LATENCIES,
            registry=registry,
        )
        self.bots = Gauge("tradingbot_operator_bots", "TradingBots by phase.", ["phase"], registry=registry)
        for phase in Phase:
            self.bots.labels(phase)
        self.bots_reachable = Gauge(
            "tradingbot_operator_bots_reachable", "Bots whose status stream is alive.", registry=registry
        )
        self.address_weight = Gauge(
            "tradingbot_operator_address_weight",
            "Request weight of an address in a minute: its limit, what is allotted for all but what reduces risk, and "
            "what the exchange last said to be used.",
            ["exchange", "egress_group", "part"],
            registry=registry,
        )
        self.address_bots = Gauge(
            "tradingbot_operator_address_bots",
            "Bots behind an address: all that share it, those that its limit is enough for, those that wait to start.",
            ["exchange", "egress_group", "bots"],
            registry=registry,
        )
        self.account_orders = Gauge(
            "tradingbot_operator_account_orders",
            "New orders of an account in an interval of the exchange: its limit, what is allotted to entries, and what "
            "the exchange last said to be unfilled. An account is named by a hash.",
            ["exchange", "account", "interval", "part"],
            registry=registry,
        )
        self.bot_calls = Counter(
            "tradingbot_operator_bot_calls", "Calls to bots.", ["call", "result"], registry=registry
        )
        self.safe_mode_engaged_seconds = Histogram(
            "tradingbot_operator_safe_mode_engaged_seconds",
            "From seeing that safe mode is wanted to the bot's word that it sends no entry.",
            buckets=LATENCIES,
            registry=registry,
        )
        self.safe_mode_acknowledged_seconds = Histogram(
            "tradingbot_operator_safe_mode_acknowledged_seconds",
            "From seeing that safe mode is wanted to the bot's word that no entry of it is on the exchange.",
            buckets=LATENCIES,
            registry=registry,
        )
        self.claims_refused = Counter(
            "tradingbot_operator_claims_refused", "Bots that found their account and symbol taken.", registry=registry
        )
        self.reservations = Counter(
            "tradingbot_operator_reservations",
            "Answers to bots that asked for room in the limits of their fleet, by result.",
            ["result"],
            registry=registry,
        )
        for result in ("granted", "refused"):
            self.reservations.labels(result)
        self.pods_replaced = Counter("tradingbot_operator_pods_replaced", "Lost pods made again.", registry=registry)
        self.deletions_incomplete = Counter(
            "tradingbot_operator_deletions_incomplete",
            "TradingBots that were let go although their bot had not finished, or not closed its position.",
            registry=registry,
        )
        self.resync_misses = Counter(
            "tradingbot_operator_resync_misses", "Changes that no watch event told, by kind.", ["kind"],
            registry=registry,
        )  # fmt: skip
        for kind in (names.PLURAL, "pods", names.KILL_SWITCH.plural, names.CLUSTER_KILL_SWITCH.plural):
            self.resync_misses.labels(kind)
        self.last_watch_event = Gauge(
            "tradingbot_operator_watch_event_timestamp_seconds", "When the last watch event came, by kind.", ["kind"],
            registry=registry,
        )  # fmt: skip
        self.last_resync = Gauge(
            "tradingbot_operator_last_resync_timestamp_seconds", "When the last resync ended.", registry=registry
        )


class _FleetCollector(Collector):
    """What is told of each TradingBot; the labels are not `namespace` and `pod`, which are the scraped operator's."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """All families."""
        labels = ["bot_namespace", "bot"]
        phases = GaugeMetricFamily(
            "tradingbot_operator_bot_phase", "1 for the present phase of a TradingBot.", labels=[*labels, "phase"]
        )
        ages = GaugeMetricFamily(
            "tradingbot_operator_bot_heartbeat_age_seconds", "Since a bot's last word to the operator.", labels=labels
        )
        unacknowledged = GaugeMetricFamily(
            "tradingbot_operator_bot_safe_mode_unacknowledged",
            "1 while safe mode is wanted, by the spec or a kill switch, and SafeModeAcknowledged is not True.",
            labels=labels,
        )
        unexplained = GaugeMetricFamily(
            "tradingbot_operator_bot_account_unexplained",
            "What a bot's account has more of an asset (below 0: less) than the fills of its bots made of it, while "
            "BalanceSynced is False for it.",
            labels=[*labels, "asset"],
        )
        for bot in self._metrics.fleet():
            key = [bot.namespace, bot.name]
            if bot.phase is not None:
                phases.add_metric([*key, bot.phase], 1.0)
            if bot.heartbeat_age is not None:
                ages.add_metric(key, bot.heartbeat_age)
            unacknowledged.add_metric(key, float(bot.unacknowledged))
            for asset, amount in bot.unexplained.items():
                unexplained.add_metric([*key, asset], float(amount))
        yield from (phases, ages, unacknowledged, unexplained)
        yield from self._switches()
        yield from self._sets()

    def _switches(self) -> Iterator[Metric]:
        labels = ["switch_kind", "switch_namespace", "switch"]
        active = GaugeMetricFamily(
            "tradingbot_operator_kill_switch_active", "1 while a kill switch holds bots, or would.", labels=labels
        )
        bots = GaugeMetricFamily(
            "tradingbot_operator_kill_switch_bots", "TradingBots that a kill switch holds.", labels=labels
        )
        pending = GaugeMetricFamily(
            "tradingbot_operator_kill_switch_unacknowledged",
            "TradingBots that a kill switch holds and that have not acknowledged.",
            labels=labels,
        )
        for switch in self._metrics.switches():
            key = [switch.kind, switch.namespace, switch.name]
            active.add_metric(key, float(switch.active))
            bots.add_metric(key, float(switch.bots))
            pending.add_metric(key, float(switch.unacknowledged))
        yield from (active, bots, pending)

    def _sets(self) -> Iterator[Metric]:
        labels = ["set_namespace", "set"]
        bots = GaugeMetricFamily(
            "tradingbot_operator_set_bots", "TradingBots of a set by phase.", labels=[*labels, "phase"]
        )
        stopped = GaugeMetricFamily(
            "tradingbot_operator_set_rollout_stopped",
            "1 while the rollout of a set has stopped, as a bot is not Ready in time.",
            labels=labels,
        )
        limit = GaugeMetricFamily(
            "tradingbot_operator_set_limit",
            "A limit over all bots of a set, by its field of spec.limits.",
            labels=[*labels, "limit"],
        )
        counted = GaugeMetricFamily(
            "tradingbot_operator_set_counted",
            "What counts against a limit of a set: positions at cost with what is reserved, the loss of the day (below "
            "0: a profit), bots in position.",
            labels=[*labels, "limit"],
        )
        reached = GaugeMetricFamily(
            "tradingbot_operator_set_daily_loss_reached",
            "1 while the bots of a set send no entries, until 00:00 UTC, as they reached spec.limits.maxDailyLoss.",
            labels=labels,
        )
        for item in self._metrics.sets():
            key = [item.namespace, item.name]
            for phase, number in item.phases.items():
                bots.add_metric([*key, phase], float(number))
            stopped.add_metric(key, float(item.rollout_stopped))
            for family, amounts in ((limit, item.limits), (counted, item.counted)):
                for name, amount in amounts.items():
                    family.add_metric([*key, name], float(amount))
            reached.add_metric(key, float(item.daily_loss_reached))
        yield from (bots, stopped, limit, counted, reached)


Check = Callable[[], str | None]
"""A probe: None when all is well, else what is wrong."""


class Servers:
    """/healthz and /readyz on one port, /metrics on another."""

    def __init__(self, metrics: Metrics, healthy: Check, ready: Check) -> None:
        self._metrics = metrics
        self._checks = {"/healthz": healthy, "/readyz": ready}
        self._runners: list[web.AppRunner] = []

    async def start(self, host: str, probe_port: int, metrics_port: int) -> tuple[int, int]:
        """Listens; port 0 takes a free one. Returns both ports."""
        probes = {path: self._probe(check) for path, check in self._checks.items()}
        return (
            await self._serve(host, probe_port, probes),
            await self._serve(host, metrics_port, {"/metrics": self._show}),
        )

    async def stop(self) -> None:
        """Closes both servers."""
        for runner in self._runners:
            await runner.cleanup()

    async def _serve(
        self, host: str, port: int, routes: dict[str, Callable[[web.Request], Awaitable[web.Response]]]
    ) -> int:
        application = web.Application()
        for path, handler in routes.items():
            application.router.add_get(path, handler)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, host, port)
        await site.start()
        return int(runner.addresses[0][1])

    @staticmethod
    def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            trouble = check()
            return web.Response(text=trouble or "ok", status=503 if trouble else 200)

        return answer

    async def _show(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._metrics.registry),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )
