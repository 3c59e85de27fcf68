"""What one trader knows from user events alone, and what must be true of them: each is legal, and their fold is the
state that REST shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from paper_exchange.core.units import parse_units

Json = dict[str, Any]

OPEN: Final = frozenset(("NEW", "PENDING_NEW", "PARTIALLY_FILLED"))
_AFTER: Final[dict[str, frozenset[str]]] = {
    "NEW": frozenset(("NEW", "PENDING_NEW")),
    "TRADE": frozenset(("PARTIALLY_FILLED", "FILLED")),
    "CANCELED": frozenset(("CANCELED",)),
    "EXPIRED": frozenset(("EXPIRED",)),
    "REPLACED": frozenset(("NEW", "PARTIALLY_FILLED", "PENDING_NEW")),
    "TRADE_PREVENTION": frozenset(("EXPIRED_IN_MATCH", "NEW", "PARTIALLY_FILLED")),
}
"""Statuses that an order may have after an execution of a type."""
_SHOWN: Final = {
    "i": "orderId", "c": "clientOrderId", "S": "side", "o": "type", "f": "timeInForce", "q": "origQty", "p": "price",
    "P": "stopPrice", "F": "icebergQty", "X": "status", "z": "executedQty", "Z": "cummulativeQuoteQty", "O": "time",
    "g": "orderListId", "Q": "origQuoteOrderQty", "V": "selfTradePreventionMode", "T": "updateTime",
}  # fmt: skip
"""Fields of an executionReport, and those of an order that REST shows."""


class BrokenPromiseError(AssertionError):
    """Something that must always hold does not."""


def promise(holds: bool, name: str, *told: object) -> None:
    """Raises unless it holds."""
    if not holds:
        raise BrokenPromiseError(f"{name}: {' | '.join(str(one) for one in told)}")


def units(text: str) -> int:
    """Units of 1e-8 of a decimal text, which may be negative."""
    return -parse_units("amount", text[1:]) if text.startswith("-") else parse_units("amount", text)


@dataclass
class Ledger:
    """Orders, lists, trades and balances as the events of one account tell them."""

    orders: dict[int, Json] = field(default_factory=dict)
    """The last report of each order; `c` is the order's own client id."""
    lists: dict[int, Json] = field(default_factory=dict)
    trades: list[Json] = field(default_factory=list)
    balances: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Free and locked, as last told."""
    owned: dict[str, int] = field(default_factory=dict)
    """Deposits and withdrawals, plus what trades brought, less what they took and cost."""
    last_execution: int = 0
    last_time: int = 0

    def take(self, events: Iterable[Json]) -> None:
        """The events of one input, in order."""
        events = list(events)
        for event in events:
            promise(event["E"] >= self.last_time, "time does not run back", self.last_time, event)
            self.last_time = event["E"]
            match event["e"]:
                case "executionReport":
                    self._execution(event)
                case "listStatus":
                    self._list(event)
                case "balanceUpdate":
                    self._own(event["a"], units(event["d"]))
                case "outboundAccountPosition":
                    told = {row["a"]: (units(row["f"]), units(row["l"])) for row in event["B"]}
                    self.balances |= told
                case other:
                    promise(False, "an event is one of Binance's", other)
        if events:
            kinds = [event["e"] for event in events]
            promise(
                kinds.count("outboundAccountPosition") <= 1 or "balanceUpdate" in kinds, "balances are told once", kinds
            )
            promise(kinds[-1] == "outboundAccountPosition", "balances are told last", kinds)

    def _execution(self, event: Json) -> None:
        promise(event["I"] > self.last_execution, "execution ids rise", self.last_execution, event)
        self.last_execution = event["I"]
        execution, status, ident = event["x"], event["X"], event["i"]
        if execution == "REJECTED":
            # A replacement that is refused after the cancel: it never was an order.
            promise(status == "REJECTED" and ident not in self.orders, "only what is new is rejected", event)
            return
        promise(status in _AFTER.get(execution, ()), "the status fits the execution", event)
        before = self.orders.get(ident)
        own_id = event["C"] if execution == "CANCELED" else event["c"]
        if before is None:
            promise(execution == "NEW", "an order begins with NEW", event)
        else:
            promise(before["X"] in OPEN, "nothing follows an order's end", before, event)
            promise(execution == "REPLACED" or own_id == before["c"], "an order keeps its client id", before, event)
            promise(all(event[name] == before[name] for name in "sSoPgO"), "an order keeps what it is", before, event)
            if execution == "NEW":
                promise(before["X"] in ("NEW", "PENDING_NEW"), "NEW again only on activation", before, event)
                promise(not before["w"], "an order becomes active once", before, event)
        had, had_quote = (units(before["z"]), units(before["Z"])) if before else (0, 0)
        part, quote = units(event["l"]), units(event["Y"])
        if execution == "TRADE":
            promise(part > 0 and event["t"] >= 0, "a trade has a quantity and an id", event)
            promise(quote == part * units(event["L"]) // 10**8, "a trade costs price times quantity", event)
            self._trade(event, part, quote)
        else:
            promise(part == 0 and quote == 0 and event["t"] == -1, "what is no trade trades nothing", event)
        promise(units(event["z"]) == had + part, "executed quantity is the sum of the trades", before, event)
        promise(units(event["Z"]) == had_quote + quote, "executed quote is the sum of the trades", before, event)
        left = units(event["q"]) - units(event["z"]) - units(event.get("A", "0"))
        promise(left >= 0, "no more is executed than was ordered", event)
        # The quantity of an order that another one pays for is 0 until it is known.
        whole = left == 0 and units(event["q"]) > 0 and status != "EXPIRED_IN_MATCH"
        promise((status == "FILLED") == whole, "filled means all of it", event)
        promise(not event["w"] or status in OPEN, "what is over does not work", event)
        self.orders[ident] = event | {"c": event["c"] if execution == "REPLACED" else own_id}

    def _trade(self, event: Json, part: int, quote: int) -> None:
        base, paid = event["s"][:3], event["s"][3:]
        sign = 1 if event["S"] == "BUY" else -1
        self._own(base, sign * part)
        self._own(paid, -sign * quote)
        self._own(event["N"], -units(event["n"]))
        self.trades.append(event)

    def _own(self, asset: str, amount: int) -> None:
        self.owned[asset] = self.owned.get(asset, 0) + amount

    def _list(self, event: Json) -> None:
        before = self.lists.get(event["g"])
        kind, status = event["l"], event["L"]
        if before is None:
            promise((kind, status) == ("EXEC_STARTED", "EXECUTING"), "a list begins with EXEC_STARTED", event)
        else:
            promise(before["L"] == "EXECUTING", "nothing follows a list's end", before, event)
            promise(
                (kind, status) in (("UPDATED", "EXECUTING"), ("ALL_DONE", "ALL_DONE")), "a list goes on or ends", event
            )
        self.lists[event["g"]] = event
        if status == "ALL_DONE":
            still = [one for one in event["O"] if self.orders.get(one["i"], {"X": "NEW"})["X"] in OPEN]
            promise(not still, "a list is done when all its orders are", event, still)

    # -- what REST shows ---------------------------------------------------------------------------------------

    def compare_orders(self, rows: Iterable[Json], *, only_open: bool) -> None:
        """Each order as the events told it, and no other."""
        shown = {row["orderId"]: row for row in rows}
        known = {ident: one for ident, one in self.orders.items() if not only_open or one["X"] in OPEN}
        promise(shown.keys() == known.keys(), "REST shows the orders of the events", shown.keys() ^ known.keys())
        for ident, event in known.items():
            row = shown[ident]
            wrong = {
                name: (event[short], row[name])
                for short, name in _SHOWN.items()
                if not _same(event[short], row.get(name))
            }
            promise(not wrong, "REST shows an order as its events told it", ident, wrong, event)

    def compare_trades(self, rows: Iterable[Json]) -> None:
        """Each trade as the events told it, and no other."""
        told = [
            (one["t"], one["i"], one["L"], one["l"], one["Y"], one["n"], one["N"], one["T"], one["m"])
            for one in self.trades
        ]
        shown = [
            (one["id"], one["orderId"], one["price"], one["qty"], one["quoteQty"], one["commission"],
             one["commissionAsset"], one["time"], one["isMaker"])
            for one in rows
        ]  # fmt: skip
        promise(told == shown, "REST shows the trades of the events", set(told) ^ set(shown))

    def compare_balances(self, rows: Iterable[Json]) -> None:
        """Balances as last told; nothing appears or is lost."""
        for row in rows:
            asset, held = row["asset"], (units(row["free"]), units(row["locked"]))
            promise(
                self.balances.get(asset, (0, 0)) == held, "REST shows the balances that were told", row, self.balances
            )
            promise(min(held) >= 0, "no balance is below 0", row)
            promise(sum(held) == self.owned.get(asset, 0), "money is conserved", row, self.owned.get(asset, 0))

    def compare_locks(self, rows: Iterable[Json], balances: Iterable[Json]) -> None:
        """Locked is what open orders need, and what a working order received for its pending ones.

        Of that the commission may be taken, or it comes out of what is free.
        """
        rows = list(rows)
        needed = needed_locks(rows)
        unsized = {row["orderListId"] for row in rows if not units(row["origQty"])}
        kept = [row for row in rows if row["orderListId"] in unsized and units(row["executedQty"])]
        for row in balances:
            asset, locked = row["asset"], units(row["locked"])
            received = sum(units(one["executedQty"]) for one in kept if one["symbol"].startswith(asset))
            working = {one["orderId"] for one in kept}
            fees = sum(units(one["n"]) for one in self.trades if one["i"] in working and one["N"] == asset)
            least = needed.get(asset, 0) + received - fees
            promise(least <= locked <= least + fees, "locked is what orders need", row, needed, received, rows)

    def compare_lists(self, rows: Iterable[Json], *, only_open: bool) -> None:
        """Each list as the events told it, and no other."""
        shown = {row["orderListId"]: row for row in rows}
        known = {ident: one for ident, one in self.lists.items() if not only_open or one["L"] == "EXECUTING"}
        promise(shown.keys() == known.keys(), "REST shows the lists of the events", shown.keys() ^ known.keys())
        for ident, event in known.items():
            row = shown[ident]
            told = (event["c"], event["L"], event["C"], [one["i"] for one in event["O"]])
            rest = (row["contingencyType"], row["listOrderStatus"], row["listClientOrderId"])
            promise(told == (*rest, [one["orderId"] for one in row["orders"]]), "REST shows a list as told", told, row)


def _same(told: Any, shown: Any) -> bool:
    return bool(told == shown) or (told == "NONE" and shown is None)


def needed_locks(rows: Iterable[Json]) -> dict[str, int]:
    """What open orders need kept aside, by asset: a pair needs the larger of its two needs once."""
    lists: dict[tuple[int, str], list[int]] = {}
    for row in rows:
        if row["status"] == "PENDING_NEW":
            continue
        left = units(row["origQty"]) - units(row["executedQty"]) - units(row.get("preventedQuantity", "0"))
        base, quote = row["symbol"][:3], row["symbol"][3:]
        selling = row["side"] == "SELL"
        price = units(row["price"]) or units(row["stopPrice"])
        ident = row["orderListId"] if row["orderListId"] >= 0 else -row["orderId"]
        lists.setdefault((ident, base if selling else quote), []).append(left if selling else left * price // 10**8)
    needed: dict[str, int] = {}
    for (_, asset), needs in lists.items():
        needed[asset] = needed.get(asset, 0) + max(needs)
    return needed
