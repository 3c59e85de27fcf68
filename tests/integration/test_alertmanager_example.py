"""The example of Alertmanager's configuration: who is told of each alert, and what is muted by what it follows from."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from monitoring import running_alertmanager

from support.chart import CHART, ROOT
from support.waiting import until

CONFIG = ROOT / "examples/monitoring/alertmanager.yaml"
RECEIVERS = {"critical": "page", "warning": "ticket", "info": "information"}
ALERTS = sorted(
    {
        (rule["alert"], rule["labels"]["severity"])
        for path in (CHART / "rules").iterdir()
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
)


def receiver(**labels: str) -> str:
    """Who is told, by amtool."""
    command = ["amtool", "config", "routes", "test", f"--config.file={CONFIG}"]
    done = subprocess.run(
        [*command, *(f"{name}={value}" for name, value in labels.items())], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("name", "severity"), ALERTS)
def test_each_alert_of_the_chart_goes_where_its_severity_belongs(name: str, severity: str) -> None:
    assert receiver(alertname=name, severity=severity) == RECEIVERS[severity]


def test_safe_mode_that_people_asked_for_is_information() -> None:
    for reason in ("Spec", "KillSwitch", "PodAnnotation", "Flattened", "Draining"):
        assert receiver(alertname="SafeModeActive", severity="warning", reason=reason) == "information", reason
    assert receiver(alertname="SafeModeActive", severity="warning", reason="DailyLoss") == "ticket"
    assert receiver(alertname="SafeModeActive", severity="critical", reason="StoreFailed") == "page"


class Alertmanager:
    """A running one, which is told of alerts as Prometheus does it."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def tell(self, *alerts: dict[str, str], resolved: bool = False) -> None:
        """They fire, or have ended."""
        now = datetime.now(UTC)
        ends = now if resolved else now + timedelta(hours=1)
        body = [{"labels": labels, "startsAt": "2026-01-01T00:00:00Z", "endsAt": ends.isoformat()} for labels in alerts]
        async with self._session.post("/api/v2/alerts", json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def muted(self) -> set[tuple[str, str]]:
        """Alert and pod of what is muted now."""
        async with self._session.get("/api/v2/alerts") as answer:
            alerts: list[dict[str, Any]] = await answer.json()
        return {
            (alert["labels"]["alertname"] + alert["labels"].get("reason", ""), alert["labels"].get("pod", ""))
            for alert in alerts
            if alert["status"]["state"] == "suppressed"
        }


@pytest.fixture
async def alertmanager(tmp_path: Path) -> AsyncIterator[Alertmanager]:
    """Alertmanager with the example."""
    with running_alertmanager(CONFIG, tmp_path) as address:
        async with aiohttp.ClientSession(address) as session:
            yield Alertmanager(session)


def of(pod: str, alert: str, severity: str = "warning", **labels: str) -> dict[str, str]:
    """An alert of a bot."""
    return {"alertname": alert, "severity": severity, "namespace": "a", "pod": pod, **labels}


async def test_what_follows_from_another_alert_of_the_same_bot_is_muted(alertmanager: Alertmanager) -> None:
    await alertmanager.tell(
        of("down", "BotDown", "critical"),
        of("down", "BotDown"),
        of("down", "SafeModeActive", reason="DailyLoss"),
        of("down", "PositionUnprotected", "critical"),
        of("banned", "ExchangeBan", "critical"),
        of("banned", "CircuitBreakerOpen"),
        of("banned", "ApiErrorRate"),
        of("banned", "WeightBudgetLow"),
        of("banned", "SafeModeActive", reason="BreakerOpen"),
        of("banned", "SafeModeActive", reason="DailyLoss"),
        of("drifted", "BalanceDrift", "critical"),
        of("drifted", "SafeModeActive", reason="UntrustedBooks"),
        of("two", "TwoTraders", "critical"),
        of("two", "GrantExpired"),
        of("unheard", "HeartbeatStale"),
        of("unheard", "GrantExpired"),
        of("other", "CircuitBreakerOpen"),
        of("other", "GrantExpired"),
    )
    expected = {
        ("BotDown", "down"),
        ("SafeModeActiveDailyLoss", "down"),
        ("CircuitBreakerOpen", "banned"),
        ("ApiErrorRate", "banned"),
        ("WeightBudgetLow", "banned"),
        ("SafeModeActiveBreakerOpen", "banned"),
        ("SafeModeActiveUntrustedBooks", "drifted"),
        ("GrantExpired", "two"),
        ("GrantExpired", "unheard"),
    }

    async def all_muted() -> bool:
        return await alertmanager.muted() == expected

    await until(f"muted: {expected}", all_muted)


async def test_an_operator_that_is_down_mutes_what_follows_for_as_long_as_it_is(alertmanager: Alertmanager) -> None:
    down = {"alertname": "OperatorDown", "severity": "critical"}
    await alertmanager.tell(
        down,
        {"alertname": "LeaderMissing", "severity": "critical", "namespace": "ops"},
        of("btc", "GrantExpired"),
        of("btc", "HeartbeatStale"),
        of("btc", "HeartbeatStale", "critical", task="orders"),
        of("btc", "SafeModeNotAcknowledged", "critical"),
        of("new", "BotDown"),
        of("lost", "BotDown", "critical"),
    )
    follows = {("LeaderMissing", ""), ("GrantExpired", "btc"), ("HeartbeatStale", "btc"), ("BotDown", "new")}

    async def muted() -> set[tuple[str, str]]:
        return await alertmanager.muted()

    async def follows_are_muted() -> bool:
        return await muted() == follows

    await until("what follows is muted", follows_are_muted)
    await alertmanager.tell(down, resolved=True)

    async def leader_is_told() -> bool:
        return ("LeaderMissing", "") not in await muted()

    await until("a missing leader is told", leader_is_told)
    assert await muted() == follows - {("LeaderMissing", "")}
    await alertmanager.tell({"alertname": "LeaderMissing", "severity": "critical", "namespace": "ops"}, resolved=True)

    async def nothing_is_muted() -> bool:
        return ("GrantExpired", "btc") in await muted() and ("BotDown", "new") not in await muted()

    # HeartbeatStale itself mutes the grant that runs out.
    await until("all others are told again", nothing_is_muted)
