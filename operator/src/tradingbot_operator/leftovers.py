"""Pure: what a deletion leaves on the exchange, as far as anybody knows, and how people are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tradingbot_api import names
from tradingbot_api.base import canonical
from tradingbot_api.bot_http import BotStatus, DrainStatus, OpenOrder
from tradingbot_api.v1alpha1 import PositionPolicy
from tradingbot_operator.inventory import SeenBot
from tradingbot_operator.status import Notice

LONGEST_LIST: Final = 600
"""Characters of an event that the list may take; an event holds 1024."""


@dataclass(frozen=True)
class Leftovers:
    """What is left, a line each, who says so, and what cannot be known."""

    lines: tuple[str, ...]
    source: str
    look_for: str
    """Where a human finds the rest."""

    def text(self) -> str:
        """The lines in one, cut where an event could not hold them: the log has them all."""
        told: list[str] = []
        for line in self.lines:
            if sum(map(len, told)) + len(line) > LONGEST_LIST:
                return f"{'; '.join(told)}; and {len(self.lines) - len(told)} more, see the operator's log"
            told.append(line)
        return "; ".join(told) or "nothing"


def leftovers(bot: SeenBot, drained: DrainStatus | None, last: BotStatus | None) -> Leftovers:
    """From the best witness there is: the drain, else the bot's last word, however old, else the status."""
    symbol = str(bot.spec.get("symbol", "its symbol"))
    account = bot.told.account_uid or (last.account_uid if last is not None else None)
    prefix = names.order_prefix(str(account), symbol) if account else "tb-"
    look_for = f"every open order of {symbol} whose client order id begins {prefix}"
    if drained is not None:
        return Leftovers(tuple(drained.remaining), "as the bot found when it drained", look_for)
    if last is not None and last.account_uid is not None:
        position = [] if last.position is None else [_position(canonical(last.position.quantity), symbol)]
        lines = [line for line in position if line] + [_order(order) for order in last.open_orders]
        unknown = () if last.position is not None else (f"position of {symbol} not known",)
        return Leftovers((*lines, *unknown), f"as the bot last said at {last.time:%Y-%m-%dT%H:%M:%SZ}", look_for)
    stands = bot.told
    quantity = "" if stands.position is None else canonical(stands.position.quantity)
    line = _position(quantity, symbol) if quantity else f"position of {symbol} not known"
    return Leftovers(((line,) if line else ()) + ("orders not known",), "as the status had it", look_for)


def _position(quantity: str, symbol: str) -> str:
    return "" if quantity == "0" else f"position {quantity} of {symbol}"


def _order(order: OpenOrder) -> str:
    return (
        f"{order.side} {order.type} {order.quantity} stop={order.stop_price} price={order.price} "
        f"list={order.order_list_id} {order.client_order_id}"
    )


def farewell(bot: SeenBot, drained: DrainStatus | None, last: BotStatus | None) -> tuple[Notice, Leftovers] | None:
    """The event that ends a deletion; None where a drain left nothing. A warning where that is not what the policy
    leaves, or not known."""
    left = leftovers(bot, drained, last)
    todo = f"Look at the account for the position and {left.look_for}: keep, sell or cancel by hand what is there."
    if drained is None:
        text = f"The TradingBot is let go although its bot had not finished. {todo} Left, {left.source}: {left.text()}."
        return Notice("DeletionIncomplete", text, warning=True), left
    if not drained.remaining:
        return None
    if drained.position_policy is PositionPolicy.CLOSE_POSITION:
        text = f"Not everything was sold or cancelled in time: {left.text()}. {todo}"
        return Notice("PositionNotClosed", text, warning=True), left
    if any("unknown" in line for line in drained.remaining):
        text = f"It is not known what stays on the exchange: {left.text()}. {todo}"
        return Notice("DeletionIncomplete", text, warning=True), left
    return Notice("LeftOnExchange", f"Stays on the exchange: {left.text()}"), left
