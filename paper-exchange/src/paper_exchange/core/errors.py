"""The refusals of the exchange, with Binance's codes, texts and HTTP statuses."""

from __future__ import annotations

from typing import Any


class ExchangeError(Exception):
    """A request the exchange refuses; `code` and `message` are what Binance answers.

    `retry_at` (ms) says when a refusal by a limit ends; `data` is what Binance answers beside code and message.
    """

    def __init__(
        self,
        code: int,
        message: str,
        status: int = 400,
        *,
        retry_at: int | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.status = status
        self.retry_at = retry_at
        self.data = data

    def told(self) -> dict[str, Any]:
        """What the sender of the request reads."""
        body: dict[str, Any] = {"code": self.code, "msg": self.message}
        return body if self.data is None else body | {"data": self.data}


def missing(name: str) -> ExchangeError:
    """A mandatory parameter is absent, empty or malformed."""
    return ExchangeError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def neither(one: str, other: str) -> ExchangeError:
    """Of two parameters at least one must be there."""
    return ExchangeError(-1102, f"Param '{one}' or '{other}' must be sent, but both were empty/null!")


def illegal(name: str, legal: str) -> ExchangeError:
    """A parameter holds characters outside its legal range."""
    return ExchangeError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def overflowed(name: str) -> ExchangeError:
    """A number is larger than a 64-bit integer can hold."""
    return ExchangeError(-1108, f"Parameter '{name}' overflowed.")


def bad_combination() -> ExchangeError:
    """Optional parameters that exclude each other were sent together."""
    return ExchangeError(-1128, "Combination of optional parameters invalid.")


def not_required(name: str) -> ExchangeError:
    """A parameter was sent that this kind of order does not take."""
    return ExchangeError(-1106, f"Parameter '{name}' sent when not required.")


def rejected(message: str) -> ExchangeError:
    """The matching engine refuses a new order."""
    return ExchangeError(-2010, message)


def filter_failure(name: str, engine: bool = False) -> ExchangeError:
    """A filter of the symbol refuses the order; those that look at the account answer as the engine (-2010)."""
    return ExchangeError(-2010 if engine else -1013, f"Filter failure: {name}")


INSUFFICIENT_BALANCE = "Account has insufficient balance for requested action."
WOULD_TRIGGER = "Order would trigger immediately."
WOULD_MATCH = "Order would immediately match and take."
BAD_OCO_PRICES = "The relationship of the prices for the orders is not correct."


def unknown_order_on_cancel() -> ExchangeError:
    """The order or list to cancel is not open."""
    return ExchangeError(-2011, "Unknown order sent.")


def no_such_order() -> ExchangeError:
    """The order asked for does not exist."""
    return ExchangeError(-2013, "Order does not exist.")


def bad_symbol() -> ExchangeError:
    """The symbol is not traded here."""
    return ExchangeError(-1121, "Invalid symbol.")


def stp_not_allowed() -> ExchangeError:
    """The symbol does not have this mode of self-trade prevention."""
    return ExchangeError(-1013, "This symbol does not allow the specified self-trade prevention mode.")
