"""Under any mixture of faults money is conserved, and the events of an account are legal and tell its state."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import aiohttp
import pytest

from campaigns.paper_ledger import Json, Ledger, units
from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, running_paper_exchange
from support.paper_ws import Trader, rest, trader

pytestmark = pytest.mark.integration

SYMBOL = "BTCUSDT"
CALLS = 150
KINDS: list[dict[str, Any]] = [
    {"kind": "lost_answer"},
    {"kind": "lost_answer", "cut": False},
    {"kind": "lost_request"},
    {"kind": "error_after", "code": -1006},
    {"kind": "error", "code": -1001},
    {"kind": "order_refused"},
    {"kind": "list_refused"},
    {"kind": "rate_limited"},
    {"kind": "maintenance"},
    {"kind": "delay", "seconds": 0.02, "jitter": 0.1},
    {"kind": "answer_delay", "seconds": 0.02, "jitter": 0.1},
    {"kind": "clock_skew", "milliseconds": 10_000},
    {"kind": "drop_events"},
    {"kind": "duplicate_events"},
    {"kind": "cut_connection"},
]


class Judge:
    """Hears every event of an account, whatever faults do to its streams."""

    def __init__(self, exchange: PaperExchange, who: Trader, **deposits: str) -> None:
        owned = {asset: units(amount) for asset, amount in deposits.items()}
        self._ledger = Ledger(owned=owned, balances={asset: (amount, 0) for asset, amount in owned.items()})
        self._exchange, self._who = exchange, who
        self._input: list[Json] = []
        assert exchange.server is not None
        exchange.server.venue.subscribe(who.uid, self._hear)

    def _hear(self, event: Json) -> None:
        self._input.append(event)
        if event["e"] == "outboundAccountPosition":  # the last event of each input
            self._ledger.take(self._input)
            self._input = []

    async def judge(self) -> int:
        """Compare with what REST shows; returns how many orders there were."""
        assert self._input == []

        async def ask(path: str, **params: str) -> Any:
            status, body, _ = await rest(self._exchange, self._who, "GET", f"/api/v3/{path}", **params)
            assert status == 200, body
            return body

        orders, balances = await ask("openOrders"), (await ask("account"))["balances"]
        self._ledger.compare_orders(orders, only_open=True)
        self._ledger.compare_orders(await ask("allOrders", symbol=SYMBOL, limit="1000"), only_open=False)
        self._ledger.compare_trades(await ask("myTrades", symbol=SYMBOL, limit="1000"))
        self._ledger.compare_lists(await ask("allOrderList", limit="1000"), only_open=False)
        self._ledger.compare_balances(balances)
        self._ledger.compare_locks(orders, balances)
        return len(self._ledger.orders)


def random_call(rng: Random, price: float) -> tuple[str, str, str, dict[str, str]]:
    """Method and path, the same on the WebSocket API, and parameters."""
    near = f"{price * rng.uniform(0.98, 1.02):.2f}"
    side, quantity = rng.choice(["BUY", "SELL"]), f"{rng.uniform(0.001, 0.01):.5f}"
    choice = rng.randrange(10)
    order = {"symbol": SYMBOL, "side": side, "quantity": quantity}
    if choice == 0:
        return "DELETE", "/api/v3/openOrders", "openOrders.cancelAll", {"symbol": SYMBOL}
    if choice == 1:
        return "POST", "/api/v3/order", "order.place", order | {"type": "MARKET"}
    if choice < 4:
        pair = {"aboveType": "LIMIT_MAKER", "belowType": "STOP_LOSS", "side": "SELL"}
        pair |= {"abovePrice": f"{price * 1.01:.2f}", "belowStopPrice": f"{price * 0.99:.2f}"}
        return "POST", "/api/v3/orderList/oco", "orderList.place.oco", order | pair
    return "POST", "/api/v3/order", "order.place", order | {"type": "LIMIT", "timeInForce": "GTC", "price": near}


@pytest.mark.parametrize("seed", [1, 2])
async def test_money_is_conserved_and_events_are_legal_under_any_mixture_of_faults(seed: int) -> None:
    rng = Random(seed)
    async with running_paper_exchange(Options(symbols=(SYMBOL,), seed=seed)) as exchange:
        held = {"USDT": "50000", "BTC": "1"}
        traders = [await trader(exchange, **held) for _ in range(2)]
        judges = [Judge(exchange, who, **held) for who in traders]
        price = float(await exchange.last_price(SYMBOL))
        for kind in rng.sample(KINDS, 10):
            await exchange.start_fault(**kind, probability=0.15, accounts=[who.uid for who in traders])
        gaps = [{"at": at / 4, "market": {"symbol": SYMBOL, "gap": rng.choice(["+2%", "-2%"])}} for at in range(12)]
        await exchange.begin_scenario(gaps)
        ends: Counter[str] = Counter()

        async def call() -> None:
            who = rng.choice(traders)
            method, path, ws_method, params = random_call(rng, price)
            try:
                if rng.random() < 0.7:
                    status, _, _ = await rest(exchange, who, method, path, timeout=0.3, **params)
                else:
                    async with exchange.session.ws_connect(exchange.ws_url + "/ws-api/v3") as socket:
                        await socket.send_json({"id": 1, "method": ws_method, "params": who.key.signed(**params)})
                        status = (await socket.receive_json(timeout=0.3))["status"]
                ends[str(status)] += 1
            except (aiohttp.ClientError, TimeoutError, TypeError) as error:
                ends[type(error).__name__] += 1

        for _ in range(CALLS // 15):
            await asyncio.gather(*(call() for _ in range(15)))
        await exchange.clear_faults()
        assert len(ends) > 3, ends
        assert sum([await judge.judge() for judge in judges]) > CALLS // 5
