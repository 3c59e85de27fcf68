"""One side of a book: the market's own levels, what we took of them, and our resting orders in the queue."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from paper_exchange.core.model import Order, Side
from paper_exchange.core.units import LARGEST


class Ladder:
    """Prices of one side, best first.

    The outside market's levels are absolute quantities. What our takers took stays taken until the market
    changes that level. Our orders rest behind the outside quantity that was there when they came.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        self._sign = 1 if side is Side.SELL else -1
        self._reported: dict[int, int] = {}
        self._available: dict[int, int] = {}
        self.own: dict[int, list[Order]] = {}
        self._keys: list[int] = []
        self.dirty: set[int] = set()
        """Prices whose shown quantity changed since the set was last emptied."""
        self.moved: dict[int, Order] = {}
        """Orders, by id, that came forward behind the outside quantity since this was last emptied."""

    def _touch(self, price: int) -> None:
        """Keep the sorted prices in step with what is at `price`."""
        self.dirty.add(price)
        key = price * self._sign
        keys = self._keys
        at = bisect_left(keys, key)
        known = at < len(keys) and keys[at] == key
        if known is not (price in self._available or price in self.own):
            if known:
                del keys[at]
            else:
                keys.insert(at, key)

    def set_level(self, price: int, quantity: int) -> None:
        """The market reports a level: a changed one is whole again, a repeated one stays as we left it."""
        if self._reported.get(price, 0) == quantity:
            return
        known = price in self._available
        if quantity:
            self._reported[price] = self._available[price] = quantity
        else:
            self._reported.pop(price, None)
            self._available.pop(price, None)
        if price in self.own:
            self.come_forward(price, at_most=quantity)
        if known and quantity:
            self.dirty.add(price)
        else:
            self._touch(price)

    def replace(self, levels: Iterable[tuple[int, int]]) -> None:
        """A snapshot: the outside market is exactly this."""
        wanted = dict(levels)
        for price in list(self._reported):
            if price not in wanted:
                self.set_level(price, 0)
        for price in self.own.keys() - wanted.keys():
            # What was ahead of an order before a restart, and was not reported since.
            self.come_forward(price, at_most=0)
        for price, quantity in wanted.items():
            self.set_level(price, quantity)

    def available(self, price: int) -> int:
        """Outside quantity at a price that nobody of ours took."""
        return self._available.get(price, 0)

    def reported(self, price: int) -> int:
        """The quantity the market last reported at a price."""
        return self._reported.get(price, 0)

    def outside(self) -> list[tuple[int, int]]:
        """All levels as the market last reported them."""
        return list(self._reported.items())

    def take(self, price: int, quantity: int) -> None:
        """One of ours (or a pushed trade) took outside quantity."""
        left = self._available[price] - quantity
        if left:
            self._available[price] = left
        else:
            del self._available[price]
        self.come_forward(price, quantity)
        self._touch(price)

    def come_forward(self, price: int, gone: int = 0, at_most: int = LARGEST) -> None:
        """Outside quantity at a price is gone, or no more than this is left: our orders have less of it ahead."""
        for order in self.own.get(price, ()):
            ahead = min(max(0, order.ahead - gone), at_most)
            if ahead != order.ahead:
                order.ahead = ahead
                self.moved[order.order_id] = order

    def add(self, order: Order) -> None:
        """An order of ours comes to rest, behind what is there."""
        order.ahead = self.available(order.price)
        self.own.setdefault(order.price, []).append(order)
        self._touch(order.price)

    def restore(self, order: Order) -> None:
        """An order that rested before a restart comes back, in the order of its place in the queue."""
        insort(self.own.setdefault(order.price, []), order, key=lambda one: one.sequence)
        self._touch(order.price)

    def remove(self, order: Order) -> None:
        """An order of ours leaves the book."""
        level = self.own[order.price]
        level.remove(order)
        if not level:
            del self.own[order.price]
        self._touch(order.price)

    def changed(self, order: Order) -> None:
        """The open quantity of a resting order changed."""
        self._touch(order.price)

    def best(self) -> int | None:
        """The best price of the side."""
        return self._keys[0] * self._sign if self._keys else None

    def best_outside(self) -> int | None:
        """The best price at which the outside market has quantity left."""
        return next((p for p in self.prices() if self._available.get(p)), None)

    def prices(self) -> Iterator[int]:
        """All prices, best first; do not change the ladder while reading."""
        return (key * self._sign for key in self._keys)

    def own_prices(self) -> list[int]:
        """Prices at which orders of ours rest, best first."""
        return sorted(self.own, key=lambda price: price * self._sign)

    def reaches(self, price: int, limit: int) -> bool:
        """Whether a taker with this limit may trade at a price of this side."""
        return price * self._sign <= limit * self._sign

    def quantity(self, price: int) -> int:
        """What the book shows at a price: the market's rest plus ours."""
        return self._available.get(price, 0) + sum(order.shown for order in self.own.get(price, ()))

    def levels(self, limit: int) -> list[tuple[int, int]]:
        """The best `limit` levels as (price, quantity)."""
        result: list[tuple[int, int]] = []
        for price in self.prices():
            if len(result) == limit:
                break
            result.append((price, self.quantity(price)))
        return result
