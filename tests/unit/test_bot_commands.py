"""Promises of the commands about a bot: which one they mean, how they say how it is, and when it counts as flat."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tradingbot.__main__ import main
from tradingbot.commands.flatten import is_done, result_lines
from tradingbot.commands.shared import UsageError
from tradingbot.commands.status_text import status_lines
from tradingbot.commands.target import Target, find_target
from tradingbot.model import Side, TradeFill
from tradingbot.monitoring.local_api import LocalStatus
from tradingbot_api import names
from tradingbot_api.bot_http import AssetClaim, BotConfig, BotIdentity, BotStatus, GrantStatus, OpenOrder
from tradingbot_api.v1alpha1 import (
    BalanceStatus,
    BotSettings,
    Condition,
    PnLStatus,
    PositionStatus,
    SafeModeCause,
    SafeModeStatus,
    TradesStatus,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COMMANDS = ["run", "status", "flatten", "sim", "replay", "replay-flight", "check", "strategies"]
SETTINGS = BotSettings.model_validate(
    {
        "symbol": "BTCUSDT",
        "exchange": {"environment": "Testnet", "credentialsSecretRef": {"name": "keys"}},
        "strategy": {"name": "ema-cross", "interval": "1m", "parameters": {"fast": 12, "slow": 26}},
        "capital": "1000.00",
        "protection": {"stopLossRatio": "0.05", "takeProfitRatio": "0.05"},
        "risk": {"maxPositionValue": "500", "maxDailyLoss": "50"},
    }
)


def told(**changes: object) -> LocalStatus:
    """A bot that holds a protected position."""
    status = BotStatus(
        bot_uid="u",
        boot_id="b",
        incarnation=1795955302,
        sequence=1,
        applied_revision=1,
        time=NOW,
        version="0.1.0",
        ready=True,
        symbol="BTCUSDT",
        grant=GrantStatus(held=True),
        conditions=[
            Condition(type="Protected", status="True", reason="Protected"),
            Condition(type="BalanceSynced", status="True", reason="Exact"),
        ],
        safe_mode=SafeModeStatus(level="Normal", engaged=False, acknowledged=False),
        balance=BalanceStatus(base=Decimal("0.0083"), quote=Decimal("9500.5"), drift=Decimal(0), last_sync_time=NOW),
        position=PositionStatus(
            side="Long",
            quantity=Decimal("0.0083"),
            average_price=Decimal("60000.10"),
            value=Decimal("498.123"),
            validated=True,
        ),
        pnl=PnLStatus(
            realized=Decimal("-0.5"), unrealized=Decimal("1.25"), total=Decimal("0.75"), fees={"BNB": Decimal("0.001")}
        ),
        trades=TradesStatus(total=3, successful=2, failed=1),
        open_orders=[order()],
        base_claim=AssetClaim(asset="BTC", claimed=Decimal(0), held=Decimal(0)),
        quote_claim=AssetClaim(asset="USDT", claimed=Decimal(0), held=Decimal(0)),
    )
    bot = BotIdentity(namespace="demo", name="btcusdt", uid="u")
    return LocalStatus(bot=bot, settings=SETTINGS, status=status.model_copy(update=changes))


def order() -> OpenOrder:
    return OpenOrder(
        client_order_id="tb-x-sl",
        order_id=7,
        order_list_id=1,
        type="STOP_LOSS",
        side="SELL",
        status="NEW",
        quantity="0.0083",
        executed_quantity="0",
        price="0",
        stop_price="57000",
        purpose="stop-loss",
        created_time=NOW,
    )


# --- what they say ---


def test_a_status_says_what_a_person_asks_first() -> None:
    assert status_lines(told(foreign_orders=["web_1"]), running=True) == [
        "demo/btcusdt trades BTCUSDT on Testnet with ema-cross (1m), capital 1000",
        "process      runs: version 0.1.0, incarnation 1795955302, ready",
        "position     0.0083 BTC bought at 60000.1, worth 498.12 USDT",
        "protection   yes, Protected",
        "PnL          +0.7500 USDT (realized -0.5000, unrealized +1.2500), fees 0.001 BNB",
        "             round trips: 3, 2 won",
        "balance      0.0083 BTC, 9500.5 USDT; agrees with the books, Exact",
        "safe mode    off",
        "orders       SELL STOP_LOSS 0.0083 stop 57000  tb-x-sl",
        "             web_1 is open and not this bot's",
    ]


def test_what_is_not_known_is_called_so_and_trouble_is_told_with_its_reason() -> None:
    cause = SafeModeCause(
        id="breaker", source="Bot", reason="BreakerOpen", level="NoNewEntries", clears="a probe ends it"
    )
    lines = status_lines(
        told(
            position=None,
            pnl=None,
            balance=None,
            open_orders=[],
            conditions=[
                Condition(type="Protected", status="False", reason="Unprotected", message="no stop"),
                Condition(type="BalanceSynced", status="Unknown", reason="NotReconciled", message="not compared yet"),
                Condition(type="CircuitClosed", status="False", reason="CircuitOpen", message="5 failures"),
            ],
            safe_mode=SafeModeStatus(level="NoNewEntries", engaged=True, acknowledged=False, causes=[cause]),
        ),
        running=False,
    )
    assert lines[1:] == [
        "process      no bot runs: read from its store and the exchange",
        "position     not known",
        "protection   NO, Unprotected: no stop",
        "PnL          not known",
        "balance      not known, NotReconciled: not compared yet",
        "safe mode    NoNewEntries, engaged, entries may still be open",
        "             breaker (NoNewEntries): a probe ends it",
        "orders       none open",
        "problem      CircuitClosed no, CircuitOpen: 5 failures",
    ]


def test_what_was_sold_is_summed_over_the_exchanges_fills() -> None:
    fills = [
        TradeFill("BTCUSDT", number, 1, Side.SELL, Decimal(price), Decimal("0.004"), Decimal("0.2"), "USDT", 0, False)
        for number, price in ((11, "60000"), (12, "59000"))
    ]
    assert result_lines(told(), fills)[0] == "sold 0.008 for 476 (59500 each), fees 0.4 USDT, trades 11, 12"
    assert result_lines(told(), [])[0].startswith("position")


# --- when it is done ---

FLAT = PositionStatus(
    side="Flat", quantity=Decimal("0.0000012"), average_price=Decimal(0), value=Decimal(0), validated=True
)
ENGAGED = SafeModeStatus(level="ReduceOnly", engaged=True, acknowledged=True)
READ_ANEW = BalanceStatus(
    base=Decimal(0), quote=Decimal(1), drift=Decimal(0), last_sync_time=NOW + timedelta(seconds=1)
)
DONE = {"position": FLAT, "safe_mode": ENGAGED, "balance": READ_ANEW, "open_orders": []}


@pytest.mark.parametrize(
    "lacks",
    [
        pytest.param({"position": None}, id="not-known"),
        pytest.param({"open_orders": [order()]}, id="an-order-is-open"),
        pytest.param({"safe_mode": ENGAGED.model_copy(update={"acknowledged": False})}, id="an-entry-may-work"),
        pytest.param({"balance": told().status.balance}, id="account-read-before-the-sale"),
        pytest.param({"balance": None}, id="account-not-read"),
        pytest.param(
            {"conditions": [Condition(type="BalanceSynced", status="False", reason="Drift")]}, id="account-differs"
        ),
    ],
)
def test_flatten_is_done_only_when_the_account_read_anew_agrees_and_nothing_can_be_bought(
    lacks: dict[str, object],
) -> None:
    before = told().status
    assert is_done(told(**DONE).status, before)
    assert not is_done(told(**DONE | lacks).status, before)


# --- which bot ---


def options(*, file: Path | None = None, state_dir: Path | None = None, keys: Path | None = None) -> argparse.Namespace:
    return argparse.Namespace(file=file, state_dir=state_dir, credentials_dir=keys)


def test_in_a_pod_nothing_has_to_be_said(tmp_path: Path) -> None:
    bot = BotIdentity(namespace="demo", name="btcusdt", uid="u")
    mounted = tmp_path / names.CONFIG_KEY
    mounted.write_text(BotConfig(revision=3, bot=bot, settings=SETTINGS).model_dump_json(by_alias=True))
    found = find_target(options(), mounted)
    assert (found.state_dir, found.credentials_dir) == (Path(names.STATE_DIR), Path(names.CREDENTIALS_DIR))
    assert found.config is not None
    assert found.config.bot == bot


def test_elsewhere_the_one_bot_of_the_home_directory_is_meant_and_of_several_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    nowhere = tmp_path / "no-pod"
    with pytest.raises(UsageError, match=r"expected FILE or --state-dir DIR: this is no bot's pod$"):
        find_target(options(), nowhere)
    one, other = (tmp_path / "tradingbot" / "default" / name for name in ("one", "other"))
    one.mkdir(parents=True)
    (one / "bot.db").touch()
    assert find_target(options(), nowhere) == Target(one, None, None)
    other.mkdir()
    (other / "bot.db").touch()
    with pytest.raises(UsageError, match=f"there are --state-dir {one}, --state-dir {other}"):
        find_target(options(), nowhere)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["status", "--state-dir", "{}"], "expected --credentials-dir DIR", id="no-keys"),
        pytest.param(
            ["status", "--state-dir", "{}", "--credentials-dir", "{}"],
            "no bot runs there, and cannot read",
            id="no-store",
        ),
        pytest.param(["flatten", "nowhere.yaml"], "nowhere.yaml: (file): cannot be read", id="no-file"),
        pytest.param(["run", "--paper", "--clear", "flattened"], "--clear: expected FILE with it", id="clear"),
    ],
)
def test_what_lacks_is_named_and_ends_with_2(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    assert words in capsys.readouterr().err


# --- help ---


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_examples_of_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"tradingbot {command}" in capsys.readouterr().out.split("examples:")[1]
