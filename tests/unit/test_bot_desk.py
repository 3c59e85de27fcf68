"""Promises of what a bot process takes over from the former one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from support.silent_disk import silent_disk
from tradingbot.app import BotApp, Options
from tradingbot.applied import Applied, choose_at_start
from tradingbot.clocks import Clocks
from tradingbot.control import Control
from tradingbot.desk import CONFIG_FACT, Desk
from tradingbot.gateway.clock import ExchangeClock
from tradingbot.monitoring.health import ConditionClock, Problem
from tradingbot.monitoring.http_api import ControlError
from tradingbot.monitoring.report import build_status, state_of
from tradingbot.monitoring.status_feed import StatusFeed
from tradingbot.orders.types import ProtectionState, ProtectionStatus
from tradingbot.recovery.safe_mode import DRAWDOWN, Level
from tradingbot.risk.drawdown import EquityMarks
from tradingbot.risk.risk_manager import Refusal
from tradingbot.session import Session
from tradingbot.state.store import Store, StoreFailedError
from tradingbot_api.bot_http import BotConfig, BotIdentity, BotStatus, DrainPhase, DrainRequest
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import BotSettings, PositionPolicy

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def config(
    revision: int, *, safe_mode: bool | None = None, cleared: tuple[str, ...] = (), environment: str = "Paper"
) -> BotConfig:
    where = {"baseURL": "http://localhost:1"} if environment == "Paper" else {}
    settings = BotSettings.model_validate(
        {
            "symbol": "BTCUSDT",
            "exchange": {"environment": environment, **where, "credentialsSecretRef": {"name": "keys"}},
            "strategy": {"name": "ema-cross", "interval": "1m", "parameters": {"fast": 12, "slow": 26}},
            "capital": "1000",
            "protection": {"stopLossRatio": "0.05", "takeProfitRatio": "0.05"},
            "risk": {"maxPositionValue": "500", "maxDailyLoss": "50"},
            "safeMode": safe_mode,
        }
    )
    identity = BotIdentity(namespace="test", name="btcusdt", uid="u-1")
    return BotConfig(revision=revision, bot=identity, settings=settings, cleared_causes=list(cleared))


def body(content: BotConfig, epoch: int = 0) -> bytes:
    """A configuration as the operator sends it."""
    return json.dumps(content.model_copy(update={"epoch": epoch}).sparse()).encode()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "bot.db")
    yield opened
    await opened.close()


async def start(store: Store, file: BotConfig) -> Desk:
    """A process that starts with that file."""
    desk = Desk(file, operated=True)
    await desk.take_over(store, choose_at_start(file, Applied.from_json(await store.get(CONFIG_FACT))))
    desk.refresh()
    return desk


@pytest.mark.parametrize(
    ("stored", "file", "engaged"),
    [
        pytest.param(config(6), config(5, safe_mode=True), False, id="file-lags"),
        pytest.param(config(6, safe_mode=True), config(5), True, id="file-lags-behind-safe-mode"),
        pytest.param(config(5), config(6, safe_mode=True), True, id="file-is-newer"),
        pytest.param(config(5), config(5, safe_mode=True), True, id="file-was-edited-by-hand"),
        pytest.param(config(5, safe_mode=True), config(6), False, id="file-releases"),
    ],
)
async def test_the_newer_of_file_and_store_says_whether_safe_mode_is_on(
    store: Store, stored: BotConfig, file: BotConfig, engaged: bool
) -> None:
    await start(store, stored)
    assert (await start(store, file)).safe_mode.has("spec") is engaged


async def latched(store: Store) -> None:
    """A process that saw a drawdown, under revision 1."""
    desk = await start(store, config(1))
    desk.risk.drawdown.marks = EquityMarks(Decimal(1000), Decimal(1000), "2026-03-01", Decimal(1000))
    desk.safe_mode.activate(DRAWDOWN, since=NOW)
    await desk.save()


async def test_a_cause_that_was_cleared_while_the_bot_was_away_is_cleared_at_its_start(store: Store) -> None:
    await latched(store)
    desk = await start(store, config(2, cleared=("drawdown",)))
    assert not desk.safe_mode.has("drawdown")
    desk.risk.update_equity(Decimal(500), NOW)
    assert desk.risk.drawdown.drawdown == 0
    assert not (await start(store, config(2))).safe_mode.has("drawdown")


async def test_a_cause_is_cleared_once_and_not_again_by_the_same_revision(store: Store) -> None:
    await latched(store)
    cleared = config(2, cleared=("drawdown",))
    desk = await start(store, cleared)
    desk.safe_mode.activate(DRAWDOWN, since=NOW)
    await desk.save()
    assert (await start(store, cleared)).safe_mode.has("drawdown")


async def test_a_cleared_cause_is_on_the_disk_together_with_its_configuration(store: Store) -> None:
    await latched(store)
    desk = await start(store, config(1))
    await Control(desk, _feed()).put_config(body(config(2, cleared=("drawdown",))))
    assert not (await start(store, config(2))).safe_mode.has("drawdown")  # without any `save` in between


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("breaker", [1]),
        ("breaker", {"order": {"failures": "many"}}),
        ("safe-mode", [{"id": "drawdown"}]),
        ("equity", {"peak": "high"}),
        ("risk", {"cooldownUntil": "soon"}),
        ("tightened", {"bot": "u-1"}),
        ("books-confirmed", {}),
        ("config", {"committed": 1}),
    ],
)
async def test_a_fact_that_is_not_what_it_should_be_ends_no_start(store: Store, name: str, fact: object) -> None:
    await start(store, config(1))
    await store.put(name, fact)
    desk = await start(store, config(1))
    await desk.save()
    if name == "config":  # the mounted file counts
        assert not desk.safe_mode.has("store-lost")
        return
    told = next(cause for cause in desk.safe_mode.causes if cause.id == "store-lost")
    assert "set aside (1 of facts)" in told.clears
    assert told.latched
    again = await start(store, config(2, cleared=("store-lost",)))
    assert store.unreadable == {("facts", name)}
    assert again.safe_mode.level < Level.REDUCE_ONLY


def found(*, rebuilt: bool = False, reset: str | None = None) -> Session:
    """A session after it looked at the exchange."""
    manager = SimpleNamespace(held_back=False, unknown=(), exchange_reset=reset, two_traders=None)
    return cast(
        Session,
        SimpleNamespace(manager=manager, at_risk=True, differs=False, drifts=0, verdict=None, books_rebuilt=rebuilt),
    )


async def test_a_lost_store_on_live_stops_entries_over_restarts_until_a_human_confirms(store: Store) -> None:
    desk = await start(store, config(1, environment="Live"))
    desk.session = found(rebuilt=True)
    desk.refresh()
    assert desk.safe_mode.has("store-lost")
    assert desk.safe_mode.level is Level.NO_NEW_ENTRIES
    await desk.save()
    assert (await start(store, config(1, environment="Live"))).safe_mode.has("store-lost"), "before it is connected"
    for revision in (2, 3):  # confirmed once, the books count as good though they were once rebuilt
        desk = await start(store, config(revision, environment="Live", cleared=("store-lost",)))
        desk.session = found(rebuilt=True)
        desk.refresh()
        assert not desk.safe_mode.has("store-lost")


@pytest.mark.parametrize("environment", ["Paper", "Testnet"])
async def test_a_lost_store_elsewhere_needs_no_human(store: Store, environment: str) -> None:
    desk = await start(store, config(1, environment=environment))
    desk.session = found(rebuilt=True)
    desk.refresh()
    assert not desk.safe_mode.has("store-lost")


async def test_a_reset_of_the_exchange_halts_over_restarts_until_a_human_lets_new_books_begin(store: Store) -> None:
    desk = await start(store, config(1, environment="Testnet"))
    desk.session = found(reset="order o-1 is gone")
    desk.refresh()
    assert desk.safe_mode.level is Level.HALTED
    await desk.save()
    desk = await start(store, config(1, environment="Testnet"))
    assert desk.safe_mode.level is Level.HALTED, "before it is connected"
    desk.session = found(reset="order o-1 is gone")
    desk.clear(["exchange-reset"])
    desk.refresh()
    assert desk.begin_anew
    assert not desk.safe_mode.has("exchange-reset")


async def test_a_reset_that_is_no_more_seen_is_cleared_and_the_books_stay(store: Store) -> None:
    desk = await start(store, config(1, environment="Testnet"))
    desk.session = found(reset="order o-1 is gone")
    desk.refresh()
    desk.session = found()
    desk.clear(["exchange-reset"])
    assert not desk.safe_mode.has("exchange-reset")
    assert not desk.begin_anew


async def test_live_is_never_begun_anew(store: Store) -> None:
    desk = await start(store, config(1, environment="Live"))
    desk.session = found(reset="order o-1 is gone")
    desk.refresh()
    desk.clear(["exchange-reset"])
    desk.refresh()
    assert desk.safe_mode.level is Level.HALTED
    assert not desk.begin_anew
    assert "delete this TradingBot" in desk.safe_mode.causes[0].clears


class DyingSession:
    """A session whose connection is closed under the call, as when the keys change."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.manager = self
        self.incarnation = 1

    async def drain(self, _policy: PositionPolicy) -> list[str]:
        self._desk.session = None
        raise RuntimeError("Session is closed")


async def test_a_drain_outlives_a_session_that_ends_under_it(store: Store) -> None:
    desk = await start(store, config(1))
    control = Control(desk, _feed())
    desk.refresh = lambda: False  # type: ignore[method-assign]
    desk.session = cast(Session, DyingSession(desk))
    await control.drain(
        DrainRequest(bot_uid="u-1", boot_id=desk.boot_id, position_policy=PositionPolicy.HOLD, deadline_seconds=2)
    )
    deadline = time.monotonic() + 5
    while desk.drain.phase is not DrainPhase.DRAINED:
        assert time.monotonic() < deadline, desk.drain
        await asyncio.sleep(0.01)
    control.close()


class SellingSession:
    """A session whose sale lasts until it is told to end, and which may be held back."""

    def __init__(self, *, held_back: bool = False) -> None:
        self.manager = self
        self.incarnation = 5
        self.held_back = held_back
        self.held = held_back
        self.sale = asyncio.Event()
        self.began: list[PositionPolicy] = []
        self.ended: list[PositionPolicy] = []
        self.entries_quiet = True
        self.protection = ProtectionStatus(ProtectionState.FLAT)
        self.drifts, self.differs, self.verdict, self.books_rebuilt = 0, False, None, False
        self.unknown: tuple[str, ...] = ()
        self.exchange_reset = self.two_traders = None

    @property
    def holding(self) -> bool:
        return not self.sale.is_set()

    async def drain(self, policy: PositionPolicy) -> list[str]:
        self.began.append(policy)
        if policy is PositionPolicy.CLOSE_POSITION:
            await self.sale.wait()
        self.ended.append(policy)
        return self.remaining()

    def remaining(self) -> list[str]:
        return []


async def drained(desk: Desk) -> None:
    """Wait for the end of a drain."""
    deadline = time.monotonic() + 5
    while desk.drain.phase is not DrainPhase.DRAINED:
        assert time.monotonic() < deadline, desk.drain
        await asyncio.sleep(0.01)


async def test_an_edit_of_the_policy_lets_a_sale_under_way_end(store: Store) -> None:
    desk, session = await start(store, config(1)), SellingSession()
    control = Control(desk, _feed())
    desk.session = cast(Session, session)
    close = DrainRequest(
        bot_uid="u-1", boot_id=desk.boot_id, position_policy=PositionPolicy.CLOSE_POSITION, deadline_seconds=60
    )
    await control.drain(close)
    await asyncio.sleep(0)
    assert session.began == [PositionPolicy.CLOSE_POSITION]
    told = await control.drain(close.model_copy(update={"position_policy": PositionPolicy.HOLD}))
    assert (told.phase, told.position_policy) == (DrainPhase.DRAINING, PositionPolicy.HOLD)
    await asyncio.sleep(0.05)
    assert session.began == [PositionPolicy.CLOSE_POSITION]
    session.sale.set()
    await drained(desk)
    assert session.ended == [PositionPolicy.CLOSE_POSITION, PositionPolicy.HOLD]
    assert desk.drain.position_policy is PositionPolicy.HOLD
    control.close()


@pytest.mark.parametrize("seconds", [1, 60], ids=["after-its-deadline", "while-it-waits"])
async def test_a_sale_waits_until_the_process_is_named_the_trader(store: Store, seconds: int) -> None:
    desk, session = await start(store, config(1)), SellingSession(held_back=True)
    session.sale.set()
    control = Control(desk, _feed())
    desk.session = cast(Session, session)
    request = DrainRequest(
        bot_uid="u-1", boot_id=desk.boot_id, position_policy=PositionPolicy.CLOSE_POSITION, deadline_seconds=seconds
    )
    assert (await control.drain(request)).phase is DrainPhase.DRAINING
    if seconds == 1:
        await drained(desk)
    else:
        await asyncio.sleep(0.1)
        assert desk.drain.phase is DrainPhase.DRAINING
    assert desk.drain.remaining == ["unknown: ends with a grant of the operator"]
    assert session.began == []
    session.held_back = False  # as the claim now names it
    await control.drain(request.model_copy(update={"claimed_incarnation": 5}))
    await drained(desk)
    assert session.ended == [PositionPolicy.CLOSE_POSITION]
    control.close()


@pytest.mark.parametrize(
    ("account_known", "phase"), [(False, DrainPhase.DRAINED), (True, DrainPhase.DRAINING)], ids=["never-traded", "lost"]
)
async def test_an_empty_store_is_no_proof_for_a_bot_whose_account_is_known(
    store: Store, account_known: bool, phase: DrainPhase
) -> None:
    desk = await start(store, config(1))
    control = Control(desk, _feed())
    request = DrainRequest(
        bot_uid="u-1",
        boot_id=desk.boot_id,
        position_policy=PositionPolicy.CLOSE_POSITION,
        deadline_seconds=60,
        account_known=account_known,
    )
    await control.drain(request)
    deadline = time.monotonic() + 5
    while not desk.drain.message and desk.drain.phase is DrainPhase.DRAINING:
        assert time.monotonic() < deadline, desk.drain
        await asyncio.sleep(0.01)
    assert desk.drain.phase is phase
    assert desk.drain.remaining == (["unknown: the bot is not connected to the exchange"] if account_known else [])
    control.close()


async def test_a_former_leader_can_neither_configure_nor_drain_also_after_a_restart(store: Store) -> None:
    desk = await start(store, config(1))
    control = Control(desk, _feed())
    await control.put_config(body(config(2), epoch=7))
    # The same content from a later leader is no other content.
    await control.put_config(body(config(2), epoch=8))
    request = DrainRequest(
        bot_uid="u-1", boot_id=desk.boot_id, position_policy=PositionPolicy.HOLD, deadline_seconds=2, epoch=7
    )
    with pytest.raises(ControlError, match="epoch: expected at least 8, got 7"):
        await control.drain(request)
    assert desk.drain.phase is DrainPhase.NONE
    desk = await start(store, config(2))
    control = Control(desk, _feed())
    with pytest.raises(ControlError, match="epoch: expected at least 8, got 7"):
        await control.drain(request.model_copy(update={"boot_id": desk.boot_id}))
    assert desk.drain.phase is DrainPhase.NONE
    with pytest.raises(ControlError, match="epoch: expected at least 8, got 7"):
        await control.put_config(body(config(3), epoch=7))
    assert desk.revision == 2


async def test_a_store_that_opens_late_does_not_bring_a_former_leader_back(store: Store) -> None:
    await Control(await start(store, config(1)), _feed()).put_config(body(config(2), epoch=7))
    desk = Desk(config(2), operated=True)
    desk.grants.meet(8)
    await desk.take_over(store, choose_at_start(config(2), Applied.from_json(await store.get(CONFIG_FACT))))
    with pytest.raises(ControlError, match="epoch: expected at least 8, got 7"):
        await Control(desk, _feed()).put_config(body(config(3), epoch=7))


async def test_the_offset_of_the_exchanges_clock_is_kept_until_it_was_measured_anew() -> None:
    clock = ExchangeClock(lambda: 1.0)
    await clock.sync(lambda: _answer(5_000))
    with pytest.raises(ConnectionError):
        await clock.sync(_unreachable)
    assert clock.now_ms() == 5_000
    await clock.sync(lambda: _answer(9_000))
    assert clock.now_ms() == 9_000


@pytest.mark.parametrize("hours", [24, -24], ids=["ahead", "behind"])
async def test_a_wall_clock_that_is_set_wrong_ends_no_daily_loss_and_no_cooldown(hours: int) -> None:
    wall = NOW
    desk = Desk(config(1), operated=False, clocks=Clocks(utc=lambda: wall))
    desk.exchange_ms = lambda: int(NOW.timestamp() * 1000) + 1
    desk.risk.restore({"dailyBreachedDay": NOW.date().isoformat(), "cooldownUntil": None})
    desk.risk.record_stop_out(NOW)
    wall += timedelta(hours=hours)
    desk.refresh()
    assert desk.safe_mode.has("daily-loss")
    pauses = desk.risk.should_pause_trading(desk.exchange_time, 0.0)
    assert [pause.code for pause in pauses] == [Refusal.DAILY_LOSS, Refusal.COOLDOWN]


async def _answer(value: int) -> int:
    return value


async def _unreachable() -> int:
    raise ConnectionError


def _feed() -> StatusFeed:
    return StatusFeed(_no_status, _no_state, time.monotonic)


def _no_status(_sequence: int) -> BotStatus:
    raise AssertionError("nobody listens")


def _no_state(_status: BotStatus) -> int:
    return 0


async def test_a_status_is_told_although_a_strategy_said_what_is_no_text() -> None:
    desk, clock = Desk(config(1), operated=True), ConditionClock()
    desk.config_problem = Problem(Reason.CONFIG_INVALID, "ValueError: caf\udce9, café")
    feed = StatusFeed(lambda sequence: build_status(desk, clock, sequence), state_of, time.monotonic)
    told = BotStatus.model_validate_json(await anext(feed.lines()))
    assert told.conditions[0].message == "ValueError: caf?, café"
    assert told.sequence == 1


@pytest.mark.parametrize("in_memory", [False, True])
async def test_a_store_that_is_opened_again_forgets_no_daily_loss_that_its_silent_disk_did_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    app = BotApp(Options(config=config(1), credentials_dir=tmp_path, state_dir=tmp_path))
    former, risk = await app._open_store(), app.desk.risk
    with silent_disk(former):
        with monkeypatch.context() as patched:
            patched.setattr("tradingbot.state.store.ANSWER_SECONDS", 0.01)
            with pytest.raises(StoreFailedError):
                await former.get("any")
        if in_memory:
            with monkeypatch.context() as patched:
                patched.setattr(Store, "open", _no_disk)
                assert (await app._open_store()).volatile
        risk.record_used_up(Refusal.DAILY_LOSS_AT_STOP, NOW)
        await app.desk.save()
        opened = await app._open_store()
    assert not opened.volatile
    assert [pause.code for pause in risk.should_pause_trading(NOW, 0.0)] == [Refusal.DAILY_LOSS]
    await opened.close()


def _no_disk(_path: Path) -> Store:
    raise StoreFailedError("no such device")


async def test_what_went_past_a_limit_by_a_gap_is_told_with_the_cause_and_in_the_message() -> None:
    steady, told = [0.0], []
    desk = Desk(config(1), operated=False, clocks=Clocks(lambda: steady[0], lambda: NOW))
    desk.tell = lambda kind, figures: told.append((kind, figures["message"]))
    for equity, second in ((1000, 0.0), (800, 1.0), (800, 4.0)):
        desk.risk.update_equity(Decimal(equity), NOW)
        steady[0] = second
        desk.refresh()
    clears = {cause.id: cause.clears for cause in desk.safe_mode.causes}
    assert clears["daily-loss"] == "the day's loss went 150 past its limit: ends at 00:00 UTC"
    assert clears["drawdown"].startswith("the drawdown went 0.05 past its limit: kubectl annotate tradingbot")
    kind, message = told[-1]
    assert kind == "SafeMode"
    assert "DailyLoss (loss=200 limit=50 overshoot=150)" in message
    assert "Drawdown (drawdown=0.2 limit=0.15 overshoot=0.05)" in message
