"""What trading costs: the rates of an account, as shares of what a fill gives."""

from __future__ import annotations

from dataclasses import dataclass

from paper_exchange.core.units import SCALE


@dataclass(frozen=True, slots=True)
class Rates:
    """One kind of commission, in units of 1e-8: a fill costs its maker or taker part plus its buyer or seller part."""

    maker: int = 0
    taker: int = 0
    buyer: int = 0
    seller: int = 0

    def share(self, *, maker: bool, buyer: bool) -> int:
        """What one side of a fill pays."""
        return (self.maker if maker else self.taker) + (self.buyer if buyer else self.seller)


@dataclass(frozen=True, slots=True)
class CommissionRates:
    """The rates that hold for an account; at first 0.1 % for maker and taker alike."""

    standard: Rates = Rates(maker=SCALE // 1000, taker=SCALE // 1000)
    special: Rates = Rates()
    tax: Rates = Rates()
    discount: int = 3 * SCALE // 4
    """What the standard part is multiplied with when BNB pays; Binance charges 75 %."""

    def parts(self) -> dict[str, Rates]:
        """The three kinds by name."""
        return {"standard": self.standard, "special": self.special, "tax": self.tax}

    def full(self, *, maker: bool, buyer: bool) -> int:
        """The share of what is received, in units of 1e-8."""
        return sum(part.share(maker=maker, buyer=buyer) for part in self.parts().values())

    def discounted(self, *, maker: bool, buyer: bool) -> int:
        """The share when BNB pays, in units of 1e-16."""
        standard = self.standard.share(maker=maker, buyer=buyer)
        return standard * self.discount + (self.full(maker=maker, buyer=buyer) - standard) * SCALE
