"""Books, positions, keys and the clock: what is judged from figures alone."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import TypeAdapter

from support.ledgers import fold
from support.order_reports import order_report, trade_fill
from support.symbol_rules import btcusdt_rules
from tradingbot.gateway.clock import ExchangeClock
from tradingbot.gateway.credentials import CredentialsMissingError, load_credentials
from tradingbot.gateway.port import Exchange
from tradingbot.model import AccountSnapshot, Balance, BalanceChange, Side
from tradingbot.orders.tracker import OrderTracker
from tradingbot.state.balance_reconciler import (
    BalanceReconciler,
    OrderMismatch,
    Verdict,
    VerdictKind,
    find_mismatches,
)
from tradingbot.state.foreign_base import ForeignBase
from tradingbot.state.heard import Heard
from tradingbot.state.ledger import LedgerState, book
from tradingbot.state.position_validator import Correction, Finding, PositionValidator
from tradingbot_api.names import bot_key

RULES = btcusdt_rules()


def books(*sides: Side) -> LedgerState:
    fills = [book(trade_fill(number, side=side), "BTC", "USDT") for number, side in enumerate(sides)]
    return fold(fills, "BTC", "USDT", RULES.lot.step)


def others(base: str | None, **changes: str) -> ForeignBase:
    amounts: dict[str, Any] = {name: Decimal(value) for name, value in changes.items()}
    return ForeignBase(None if base is None else Decimal(base), **amounts)


def account(base: str) -> AccountSnapshot:
    balances = {"BTC": Balance(Decimal(base), Decimal(0)), "USDT": Balance(Decimal(100), Decimal(0))}
    return AccountSnapshot("1", True, balances, Decimal(0), Decimal(0), 7)


EXACT, COVERED, DRIFT = VerdictKind.EXACT, VerdictKind.COVERED, VerdictKind.DRIFT
OTHERS = "are not this bot's"


@pytest.mark.parametrize(
    ("base", "foreign", "kind", "unexplained", "message"),
    [
        pytest.param("1", others("0"), EXACT, "0", "", id="dedicated"),
        pytest.param("3", others("2"), EXACT, "0", "", id="as-much-as-at-the-start"),
        pytest.param(
            "3", others("0"), COVERED, "2", f"of the 3 BTC in the account, 2 {OTHERS}: 2 unexplained", id="shared"
        ),
        pytest.param("3", others(None), COVERED, None, f"of the 3 BTC in the account, 2 {OTHERS}", id="no-start"),
        pytest.param(
            "3",
            others("0", moved="2"),
            EXACT,
            "0",
            f"of the 3 BTC in the account, 2 {OTHERS}: 2 deposited",
            id="deposit",
        ),
        pytest.param(
            "1",
            others("2", moved="-2"),
            EXACT,
            "0",
            f"of the 1 BTC in the account, 0 {OTHERS}: 2 withdrawn",
            id="withdrawal",
        ),
        pytest.param(
            "1.5",
            others("2", traded="-1.5"),
            EXACT,
            "0",
            f"of the 1.5 BTC in the account, 0.5 {OTHERS}: 1.5 sold by orders of others",
            id="foreign-sale",
        ),
        pytest.param(
            "1.5",
            others("0", traded="0.3"),
            COVERED,
            "0.2",
            f"of the 1.5 BTC in the account, 0.5 {OTHERS}: 0.3 bought by orders of others, 0.2 unexplained",
            id="half-explained",
        ),
        pytest.param(
            "1.5",
            others("1", locked_outside="0.5"),
            COVERED,
            "-0.5",
            f"of the 1.5 BTC in the account, 0.5 {OTHERS}: 0.5 locked outside of spot trading, -0.5 unexplained",
            id="locked-outside",
        ),
        pytest.param(
            "0.9",
            others("0"),
            DRIFT,
            "-0.1",
            "the account holds 0.9 BTC, the position is 1: -0.1 unexplained",
            id="too-little",
        ),
        pytest.param(
            "0.9",
            others("0", moved="-0.1"),
            DRIFT,
            "0",
            "the account holds 0.9 BTC, the position is 1: 0.1 withdrawn",
            id="withdrawn-from-the-position",
        ),
        pytest.param(
            "0.99999001",
            others("0", moved="-0.00000999"),
            COVERED,
            "0",
            "0.00000999 BTC of the position are not there, too little to be sold: 0.00000999 withdrawn",
            id="dust",
        ),
        pytest.param(
            "0.99999",
            others("0"),
            DRIFT,
            "-0.00001",
            "the account holds 0.99999 BTC, the position is 1: -0.00001 unexplained",
            id="no-dust",
        ),
    ],
)
def test_books_are_exact_covered_or_drifted_and_the_verdict_says_by_what(
    base: str, foreign: ForeignBase, kind: VerdictKind, unexplained: str | None, message: str
) -> None:
    verdict = reconciler().compare_with_saved_state(account(base), books(Side.BUY), [], foreign)

    assert verdict == Verdict(
        kind,
        Balance(Decimal(base), Decimal(0)),
        Balance(Decimal(100), Decimal(0)),
        position=Decimal(1),
        drift=Decimal(base) - 1,
        time_ms=7,
        message=message,
        unexplained=None if unexplained is None else Decimal(unexplained),
        uncovered="holds" in message,
    )
    assert verdict.synced is (kind is not VerdictKind.DRIFT)


def test_what_was_sold_without_having_been_bought_and_fills_that_are_missing_are_a_drift() -> None:
    oversold = reconciler().compare_with_saved_state(account("0"), books(Side.SELL), [], others("0"))
    assert (oversold.kind, oversold.message) == (DRIFT, "1 BTC sold that this bot never bought")

    mismatches = [OrderMismatch(name, Decimal(1), Decimal("0.5")) for name in ("a", "b")]
    missing = reconciler().compare_with_saved_state(account("1"), books(Side.BUY), mismatches, others("0"))
    assert (missing.kind, missing.message) == (DRIFT, "order a: 1 executed, its trades sum to 0.5")


async def test_the_account_is_read_past_an_open_circuit_and_judged_with_the_orders() -> None:
    class Asked:
        """What is asked for to judge a position passes an open circuit."""

        async def account(self, *, urgent: bool = False) -> AccountSnapshot:
            assert urgent
            return account("1")

    asking = BalanceReconciler(cast(Exchange, Asked()), RULES)
    read, base, quote = await asking.get_real_balances()
    assert (read.time_ms, base.total, quote.total) == (7, Decimal(1), Decimal(100))
    _, order = OrderTracker().absorb(order_report("id", executed="1"), "en")
    fill = replace(trade_fill(1), commission=Decimal(1), commission_asset="ODD")
    held = fold([book(fill, "BTC", "USDT")], "BTC", "USDT", RULES.lot.step)
    verdict = await asking.reconcile_position([(order, Decimal(1))], held, others("0"), {"ODD"})
    assert (verdict.kind, verdict.message[-20:]) == (COVERED, "price of ODD in USDT")
    verdict = await asking.reconcile_position([(order, Decimal(2))], held, others("0"), {"ODD"})
    assert verdict.message == "order id: 1 executed, its trades sum to 2"


def test_fees_of_an_asset_without_a_market_are_named() -> None:
    fill = replace(trade_fill(1), commission=Decimal(1), commission_asset="ODD")
    held = fold([book(fill, "BTC", "USDT")], "BTC", "USDT", RULES.lot.step)

    def message(priceless: set[str]) -> str:
        verdict = reconciler().compare_with_saved_state(account("1"), held, [], others("0"), priceless)
        assert verdict.kind is VerdictKind.COVERED
        return verdict.message

    assert message(set()) == "1 fees have no value in USDT yet: the profit lacks them"
    assert message({"ODD", "EVEN"}) == f"{message(set())}; no market tells the price of EVEN, ODD in USDT"


def test_what_is_known_of_others_survives_a_restart() -> None:
    known = others("1", traded="-0.25").after_change(BalanceChange("BTC", Decimal("0.5"), False, 7))
    form = TypeAdapter(ForeignBase)

    assert form.validate_json(form.dump_json(known)) == known
    assert form.validate_python({"base": "1", "quiet_ms": 5}) == replace(others("1"), quiet_ms=5)  # of older versions


def test_what_others_have_follows_transfers_trades_and_the_fees_that_they_paid_for_this_bot() -> None:
    start = replace(others("2", moved="1", traded="0.5", locked_outside="4"), quiet_ms=3, next_trade=5)
    came = start.after_change(BalanceChange("BTC", Decimal("0.25"), False, 7))
    assert came == replace(start, moved=Decimal("1.25"))
    assert came.after_change(BalanceChange("BTC", Decimal(-1), True, 7)) == replace(came, locked_outside=Decimal(3))
    bought = replace(trade_fill(1), commission=Decimal("0.01"), commission_asset="BTC")
    sold = replace(trade_fill(2, side=Side.SELL, quantity="3"), commission=Decimal(5))
    traded = start.after_trades([bought, sold], 9, "BTC")
    assert traded == replace(start, traded=Decimal("-1.51"), next_trade=9)
    assert traded.looked_until(8) == traded
    assert traded.looked_until(9).next_trade == 10
    assert others("1").looked_until(9) == others("1"), "before the first look nothing was skipped"

    # 1 bought with a fee of 1.5 in base: half a coin was paid by others.
    fee = replace(trade_fill(1), commission=Decimal("1.5"), commission_asset="BTC")
    held = fold([book(fee, "BTC", "USDT")], "BTC", "USDT", RULES.lot.step)
    assert held.foreign_fees == Decimal("0.5")
    assert traded.expected(held) == 2 + 1 - Decimal("1.51") - Decimal("0.5")
    assert others(None).expected(held) is None
    assert traded.changes(held) == [
        "1 deposited",
        "1.51 sold by orders of others",
        "0.5 paid as fees of this bot",
    ]
    adopted = traded.adopted(held, Decimal(3), 9)
    assert (adopted.base, adopted.moved, adopted.traded) == (Decimal("3.5"), Decimal(0), Decimal(0))
    assert adopted.quiet_ms == 3
    assert adopted.expected(held) == 3


def test_adopting_the_account_makes_the_rest_of_it_others() -> None:
    held = books(Side.BUY)
    adopted = others(None, moved="5").adopted(held, Decimal("1.25"), 9)

    assert adopted.expected(held) == Decimal("0.25")
    assert adopted.changes(held) == []
    assert adopted.next_trade == 9


def reconciler() -> BalanceReconciler:
    """One that asks nobody."""
    return BalanceReconciler(cast(Exchange, None), RULES)


def test_an_order_whose_trades_are_not_all_booked_is_found() -> None:
    _, order = OrderTracker().absorb(order_report("id", executed="1"), "en")

    assert find_mismatches([(order, Decimal("0.5"))]) == [OrderMismatch("id", Decimal(1), Decimal("0.5"))]
    assert find_mismatches([(order, Decimal(1))]) == []


@pytest.mark.parametrize(
    ("quantity", "total", "protected", "oversold", "findings", "correction"),
    [
        pytest.param("1", "1", True, "0", (), Correction.NONE, id="good"),
        pytest.param("0", "0", False, "0", (), Correction.NONE, id="flat"),
        pytest.param("0.01", "1", False, "0", (Finding.DUST,), Correction.LEAVE_DUST, id="dust"),
        pytest.param("1", "1", False, "0", (Finding.UNPROTECTED,), Correction.PROTECT, id="unprotected"),
        pytest.param("1", "0.5", True, "0", (Finding.NOT_COVERED,), Correction.RECONCILE, id="not-covered"),
        pytest.param("1", "1", True, "1", (Finding.OVERSOLD,), Correction.RECONCILE, id="oversold"),
        pytest.param("0.05", "1", False, "0", (Finding.UNPROTECTED,), Correction.PROTECT, id="just-no-dust"),
        pytest.param("1", "1", True, "0.1", (Finding.OVERSOLD,), Correction.RECONCILE, id="a-little-oversold"),
        pytest.param(
            "0.6",
            "0.5",
            False,
            "0.2",
            (Finding.OVERSOLD, Finding.NOT_COVERED, Finding.UNPROTECTED),
            Correction.RECONCILE,
            id="all-at-once",
        ),
        pytest.param(
            "0.04",
            "0",
            False,
            "0",
            (Finding.NOT_COVERED, Finding.DUST),
            Correction.RECONCILE,
            id="dust-that-is-not-there",
        ),
    ],
)
def test_a_position_is_judged_and_a_correction_suggested(  # noqa: PLR0917, a table
    quantity: str, total: str, protected: bool, oversold: str, findings: tuple[Finding, ...], correction: Correction
) -> None:
    validator = PositionValidator("BTCUSDT", Decimal(5))
    assert validator.symbol == "BTCUSDT"
    validation = validator.validate_position(
        Decimal(quantity),
        Decimal(100),
        account_total=Decimal(total),
        protected=protected,
        oversold=Decimal(oversold),
    )

    assert validation.findings == findings
    assert validation.valid is (correction in {Correction.NONE, Correction.LEAVE_DUST})
    assert validator.suggest_correction(validation) is correction
    again = validator.suggest_correction(validation, compared_again=True)
    assert again is (Correction.ADOPT if correction is Correction.RECONCILE else correction)


async def test_the_offset_is_the_median_so_that_one_slow_answer_does_not_matter() -> None:
    now = 100.0
    clock = ExchangeClock(lambda: now)

    async def answer(delay: float, error: int) -> int:
        nonlocal now
        now += delay
        return int((now - delay / 2) * 1000) + 5_000 + error

    for error in (0, 1, -1, 900, 0):
        await clock.sample(lambda error=error: answer(0.1, error))  # type: ignore[misc]

    assert clock.now_ms() == int(now * 1000) + 5_000


def test_the_clock_says_so_when_it_was_never_read() -> None:
    with pytest.raises(RuntimeError, match="sync_clock"):
        ExchangeClock(lambda: 1.0).now_ms()


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        pytest.param({}, "apiKey", id="nothing"),
        pytest.param({"apiKey": "k"}, "apiSecret", id="half"),
        pytest.param({"apiKey": "", "apiSecret": "s"}, "apiKey", id="empty"),
    ],
)
def test_missing_keys_are_named_without_a_value(tmp_path: Path, files: dict[str, str], missing: str) -> None:
    for name, value in files.items():
        (tmp_path / name).write_text(value)

    with pytest.raises(CredentialsMissingError, match=missing):
        load_credentials(tmp_path)


def test_keys_are_read_and_never_shown(tmp_path: Path) -> None:
    for name in ("apiKey", "apiSecret"):
        (tmp_path / name).write_text(f"{name}-value\n")
    credentials = load_credentials(tmp_path)

    assert credentials.api_secret == "apiSecret-value"
    assert "value" not in repr(credentials)


def test_what_the_user_stream_tells_besides_own_orders_is_summed_until_it_may_have_missed_something() -> None:
    own, other = (bot_key("1001", symbol) for symbol in ("BTCUSDT", "ETHUSDT"))
    heard = Heard()
    heard.begin(1_000)
    for amount, locked in (("5", False), ("-2", False), ("7", True)):
        heard.take_change(BalanceChange("USDT", Decimal(amount), locked, 1_001))
    for client_id in (f"tb-{own}-0000001-000001-en", f"tb-{other}-0000001-000001-en", "by-hand") * 2:
        heard.take_trade(order_report(client_id), own)

    assert heard == Heard(1_000, {"USDT": Decimal(3)}, 2, {other: 2})
    heard.begin(2_000)
    assert heard == Heard(2_000)
