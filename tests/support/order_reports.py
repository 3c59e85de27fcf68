"""Orders and fills as an exchange would report them, for tests without one."""

from __future__ import annotations

from decimal import Decimal

from tradingbot.model import NO_LIST, OrderReport, OrderStatus, OrderType, Side, TimeInForce, TradeFill


def order_report(
    client_id: str,
    *,
    order_id: int = 11,
    list_id: int = NO_LIST,
    side: Side = Side.SELL,
    kind: OrderType = OrderType.LIMIT,
    status: OrderStatus = OrderStatus.NEW,
    quantity: str = "1",
    executed: str = "0",
    time_ms: int = 1,
    expiry_reason: str | None = None,
) -> OrderReport:
    """An order; stops have a stop price of 90, all a price of 100."""
    return OrderReport(
        symbol="BTCUSDT",
        order_id=order_id,
        order_list_id=list_id,
        client_order_id=client_id,
        side=side,
        type=kind,
        status=status,
        time_in_force=TimeInForce.GTC,
        price=Decimal(100),
        stop_price=Decimal(90) if kind.is_stop else Decimal(0),
        quantity=Decimal(quantity),
        executed_quantity=Decimal(executed),
        time_ms=time_ms,
        expiry_reason=expiry_reason,
    )


def trade_fill(trade_id: int, *, order_id: int = 11, side: Side = Side.BUY, quantity: str = "1") -> TradeFill:
    """A fill at 100 without a fee."""
    return TradeFill(
        symbol="BTCUSDT",
        trade_id=trade_id,
        order_id=order_id,
        side=side,
        price=Decimal(100),
        quantity=Decimal(quantity),
        commission=Decimal(0),
        commission_asset="USDT",
        is_maker=False,
        time_ms=1,
    )
