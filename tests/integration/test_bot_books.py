"""The books against the account: fees in BNB, money that people move, and several bots on one account."""

from __future__ import annotations

from pathlib import Path

import pytest

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_orders import bot_side
from tradingbot.state.balance_reconciler import VerdictKind

pytestmark = pytest.mark.integration


def pay_in_bnb(paper: PaperExchange, account: TestAccount) -> None:
    """Fees of the account are paid in BNB from now on."""
    assert paper.server is not None
    paper.server.venue.exchange.set_bnb_discount(account.uid, True)


async def test_a_sale_of_bnb_that_is_paid_for_in_bnb_leaves_the_books_exact(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BNB="1")
    pay_in_bnb(paper, account)
    async with bot_side(paper, account, tmp_path / "bot.db", symbol="BNBUSDT", stream=False) as bot:
        for _ in range(2):
            await bot.enter("1")
            await bot.orders.exit("test")
            verdict = await bot.orders.reconcile()

            books = bot.orders.books
            assert (verdict.kind, verdict.message) == (VerdictKind.EXACT, "")
            assert books.oversold == 0
            assert books.flat
            # The rest that cannot be sold pays of the fee what it can, the base that was there before the rest.
            assert books.foreign_fees > 0
            assert await bot.base_at_exchange() == 1 + books.quantity - books.foreign_fees
