"""The exchange's answers have the fields and JSON types of recorded Binance payloads; what differs is listed here."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from paper_exchange.server.app import Options
from paper_exchange.testing import running_paper_exchange
from support.json_shapes import differences, shape
from support.signing import Sender
from support.spot_scene import REST_NAMES, SYMBOL, SpotScene
from support.still_market import write_still_market

DATA = os.environ.get("TRADINGBOT_TEST_DATA")
FIXTURES: Final = Path(DATA or "") / "JKorf-Binance.Net"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        DATA is None or not FIXTURES.is_dir(),
        reason="TRADINGBOT_TEST_DATA names no directory with recorded payloads",
    ),
]
DEADLINE_SECONDS: Final = 10.0

OUT_OF_SCOPE: Final = {
    "margin": """
        Account/CrossMarginAdjustMaxLeverage Account/CrossMarginSmallLiabilityExchange
        Account/DisableIsolatedMarginAccount Account/EnableIsolatedMarginAccount
        Account/GetCrossMarginSmallLiabilityExchangeAssets Account/GetCrossMarginSmallLiabilityExchangeHistory
        Account/GetEnabledIsolatedMarginAccountLimit Account/GetInterestMarginData Account/GetIsolatedMarginAccount
        Account/GetIsolatedMarginFeeData Account/GetMarginAccountInfo Account/GetMarginCapitalFlowData
        Account/GetMarginForcedLiquidationHistory Account/GetMarginInterestHistory
        Account/GetMarginInterestRateHistory Account/GetMarginLevelInformation Account/GetMarginLoans
        Account/GetMarginMaxBorrowAmount Account/GetMarginMaxTransferAmount Account/GetMarginOrderRateLimitStatus
        Account/GetMarginRepays Account/GetMarginTransferHistory Account/MarginBorrow Account/MarginRepay
        ExchangeData/GetCrossMarginCollateralRatio ExchangeData/GetFutureHourlyInterestRate
        ExchangeData/GetIsolatedMarginTierData ExchangeData/GetMarginAssets ExchangeData/GetMarginDelistSchedule
        ExchangeData/GetMarginPriceIndex Trading/CancelAllMarginOrders Trading/CancelMarginOcoOrder
        Trading/CancelMarginOrder Trading/GetMarginOcoOrder Trading/GetMarginOcoOrders Trading/GetMarginOpenOcoOrders
        Trading/GetMarginOrder Trading/GetMarginOrders Trading/GetMarginUserTrades Trading/GetOpenMarginOrders
        Trading/PlaceMarginOCOOrder Trading/PlaceMarginOrder""",
    "portfolio margin": """
        Account/GetPortfolioMarginAccountInfo Account/GetPortfolioMarginBankruptcyLoan
        Account/GetPortfolioMarginCollateralRate Account/PortfolioMarginBankruptcyLoanRepay""",
    "deposits, withdrawals and transfers: there is no wallet": """
        Account/GetDepositAddress Account/GetDepositAddressesList Account/GetDepositHistory
        Account/GetTransfers Account/GetTravelRuleWithdrawalHistory Account/GetWithdrawalAddresses
        Account/GetWithdrawalHistory Account/Transfer Account/Withdraw Account/GetFiatDepositWithdrawHistory
        Account/GetFiatPaymentHistory ExchangeData/GetAssetDetails""",
    "the wallet beside Spot": """
        Account/GetAccountVipLevelAndStatus Account/GetAssetDividendRecords Account/GetDailyFutureAccountSnapshot
        Account/GetDailyMarginAccountSnapshot Account/GetDailySpotAccountSnapshot Account/GetFundingWallet
        Account/GetWalletBalances Account/GetRebateHistory Account/GetCloudMiningHistory""",
    "conversion of dust and of stable coins": """
        Account/ConvertBusd Account/DustTransfer Account/GetAssetsForDustTransfer
        Account/GetAutoConvertStableCoinConfig Account/GetBusdConvertHistory Account/GetDustLog
        Account/SetAutoConvertStableCoinConfig""",
    "convert": """
        ExchangeData/GetConvertListAllPairs ExchangeData/GetConvertQuantityPrecisionPerAsset
        Trading/ConvertAcceptQuote Trading/ConvertQuoteRequest Trading/GetConvertOrderStatus
        Trading/GetConvertTradeHistory""",
    "leveraged tokens": """
        Account/GetLeveragedTokensUserLimit ExchangeData/GetLeveragedTokenInfo
        Trading/GetLeveragedTokensRedemptionRecords Trading/GetLeveragedTokensSubscriptionRecords
        Trading/RedeemLeveragedToken Trading/SubscribeLeveragedToken""",
    "algorithms of the Algo API": """
        Trading/CancelAlgoOrder Trading/GetAlgoSubOrders Trading/GetClosedAlgoOrders Trading/GetOpenAlgoOrders
        Trading/PlaceTimeWeightedAveragePriceOrder""",
    "payments between people": """
        Trading/GetC2CTradeHistory Trading/GetPayTradeHistory Trading/GetPayTradeHistory2""",
    "events of margin accounts": "Account/Liability Account/MarginCall",
    "a candle cut down for a test of the client": "ExchangeData/Concurrent",
}
"""Fixtures of what is not Spot, by why; names without their folders' common beginning and without `.txt`."""

_LATER: Final = "the fixture is older than the field, which today's documentation shows"
_COPIED: Final = "the fixture repeats an answer of order.status; ours has the documented fields of this request"
_NOTHING: Final = "nothing of the kind exists here, so the list is empty"
_CONDITIONAL: Final = "only orders that were prevented from a trade show it"
_AMENDED: Final = """
    +amendedOrder.cumulativeQuoteQty +amendedOrder.origClientOrderId +amendedOrder.preventedQty +amendedOrder.qty
    +amendedOrder.quoteOrderQty -amendedOrder.cummulativeQuoteQty -amendedOrder.icebergQty -amendedOrder.isWorking
    -amendedOrder.origQty -amendedOrder.origQuoteOrderQty -amendedOrder.preventedMatchId
    -amendedOrder.preventedQuantity -amendedOrder.stopPrice -amendedOrder.strategyId -amendedOrder.strategyType
    -amendedOrder.time -amendedOrder.trailingDelta -amendedOrder.trailingTime -amendedOrder.updateTime"""
DIFFERENCES: Final[dict[str, dict[str, str]]] = {
    "Endpoints/Account/GetCommissionRates": {_LATER: "+specialCommission"},
    "Endpoints/Account/GetUserAssets": {"no coin has a network to come or go by": "-[].networkList[]"},
    "Endpoints/ExchangeData/GetDelistSchedule": {_NOTHING: "-[]"},
    "Endpoints/ExchangeData/GetIsolatedMarginSymbols": {_NOTHING: "-[]"},
    "Endpoints/ExchangeData/GetMarginSymbols": {_NOTHING: "-[]"},
    "Endpoints/ExchangeData/GetExchangeInfo": {
        _LATER: """+symbols[].amendAllowed +symbols[].baseCommissionPrecision +symbols[].opoAllowed
            +symbols[].otoAllowed +symbols[].pegInstructionsAllowed +symbols[].permissionSets
            +symbols[].quoteCommissionPrecision"""
    },
    "Endpoints/ExchangeData/GetReferencePriceCalculation": {
        "an arithmetic mean is calculated by the exchange itself": "-externalCalculationId"
    },
    "Endpoints/Trading/GetPreventedTrades": {_LATER: "+[].makerSymbol"},
    "Endpoints/Trading/PlaceTestOrder": {_LATER: "+specialCommissionForOrder"},
    "Endpoints/Trading/AmendOrder": {_COPIED: _AMENDED},
    "Endpoints/Trading/CancelAllOrders": {_LATER: "+[].origQuoteOrderQty"},
    "Endpoints/Trading/CancelOcoOrder": {_LATER: "+orderReports[].origQuoteOrderQty"},
    "Endpoints/Trading/CancelOrder": {_LATER: "+origQuoteOrderQty"},
    "Endpoints/Trading/PlaceOcoOrderList": {_LATER: "+orderReports[].origQuoteOrderQty"},
    "Endpoints/Trading/PlaceOrder": {_LATER: "+origQuoteOrderQty"},
    "Endpoints/Trading/PlaceOtoOrderList": {_LATER: "+orderReports[].origQuoteOrderQty"},
    "Endpoints/Trading/PlaceOtocoOrderList": {_LATER: "+orderReports[].origQuoteOrderQty"},
    "Endpoints/Trading/ReplaceOrder": {
        "the fixture has the halves in `data`, as a refusal tells them; success tells them at the top": """
            +cancelResponse +cancelResult +newOrderResponse +newOrderResult -data"""
    },
    "Socket/ExchangeData/GetExchangeInfo": {
        _LATER: "+result.symbols[].opoAllowed +result.symbols[].pegInstructionsAllowed",
        "the field is amendAllowed in the documentation": "+result.symbols[].amendAllowed -result.symbols[].allowAmend",
        "the fixture shows some of the types of filters": "+result.symbols[].filters[].*",
        "no symbol has smart order routing": "-result.sors",
    },
    "Socket/Trading/AmendOrder": {_COPIED: _AMENDED.replace("amendedOrder", "result.amendedOrder")},
    "Socket/Trading/CancelAllOrders": {
        _COPIED: """+result[].origClientOrderId +result[].transactTime -result[].icebergQty -result[].isWorking
            -result[].stopPrice -result[].time -result[].updateTime -result[].workingTime"""
    },
    "Socket/Trading/CancelOcoOrder": {_LATER: "+result.orderReports[].origClientOrderId"},
    "Socket/Trading/CancelOrder": {
        _COPIED: """+result.origClientOrderId +result.transactTime -result.icebergQty -result.isWorking
            -result.preventedMatchId -result.preventedQuantity -result.stopPrice -result.strategyId
            -result.strategyType -result.time -result.trailingDelta -result.trailingTime -result.updateTime
            -result.workingTime"""
    },
    "Socket/Trading/GetOrder": {_CONDITIONAL: "-result.preventedMatchId -result.preventedQuantity"},
    "Socket/Trading/PlaceOrder": {_LATER: "+result.selfTradePreventionMode"},
    "Socket/Trading/PlaceTestOrder": {_LATER: "+result.specialCommissionForOrder"},
    "Socket/Trading/ReplaceOrder": {
        "the fixture is cut: a LIMIT order is answered in FULL": """
            +result.newOrderResponse.fills +result.newOrderResponse.workingTime"""
    },
    "Subscriptions/ExchangeData/Trades": {"the ids of the orders left the stream on 2024-06-18": "-data.a -data.b"},
}
"""What differs, by why: `-` the fixture has it and we do not, `+` we have more, `~` the type; `*` ends a prefix."""


def fixtures(folder: str) -> dict[str, str]:
    """The texts of a folder's fixtures by name: `Account/GetAccountInfo`."""
    where = FIXTURES / folder
    paths = sorted(where.glob("*/*.txt")) if DATA else []
    return {str(path.relative_to(where).with_suffix("")): path.read_text(encoding="utf-8-sig") for path in paths}


ENDPOINTS: Final = fixtures("Endpoints/Spot")
SOCKET: Final = fixtures("Socket/Spot")
SUBSCRIPTIONS: Final = fixtures("Subscriptions/Spot")
_OUT: Final = {name for names in OUT_OF_SCOPE.values() for name in names.split()}


def in_scope(found: dict[str, str]) -> list[str]:
    return [name for name in found if name not in _OUT]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SpotScene]:
    """An account with money where the market stands still."""
    market = write_still_market(tmp_path_factory.mktemp("market"), BTCUSDT="50000", ETHUSDT="3000")
    async with running_paper_exchange(Options(symbols=(SYMBOL, "ETHUSDT"), market=market)) as exchange:
        account = await exchange.create_account(USDT="1000000", BTC="10", BNB="10")
        yield SpotScene(Sender(exchange, account))


def compare(name: str, recorded: Any, told: Any) -> None:
    """Fail on each difference that is not listed, and on each listed one that is none any more."""
    listed = {one for names in DIFFERENCES.get(name, {}).values() for one in names.split()}
    found = differences(shape(recorded), shape(told))
    prefixes = [one[:-1] for one in listed if one.endswith("*")]
    named = {next((f"{prefix}*" for prefix in prefixes if one.startswith(prefix)), one) for one in found}
    assert named == listed, told


MORE: Final = {
    "Account/SetBnbBurnStatus": {"spotBNBBurn": "true"},
    "Trading/PlaceOcoOrderList": {"belowIcebergQty": "0.0005"},
}
"""Parameters that make an answer as whole as the fixture."""


@pytest.mark.parametrize("name", in_scope(ENDPOINTS))
async def test_a_rest_answer_is_shaped_as_the_recorded_one(scene: SpotScene, name: str) -> None:
    verb, path, signed, *lines = ENDPOINTS[name].splitlines()
    await scene.clear()
    params = await scene.params(f"{verb} {path}") | MORE.get(name, {})
    sender = scene.sender
    told = await (sender.signed(verb, path, **params) if signed == "true" else sender.public(path, **params))
    compare(f"Endpoints/{name}", json.loads("\n".join(lines)), told)


@pytest.mark.parametrize("name", in_scope(SOCKET))
async def test_a_websocket_answer_is_shaped_as_the_recorded_one(scene: SpotScene, name: str) -> None:
    asked, recorded = SOCKET[name].split("\n= ", 1)
    method = json.loads(asked.removeprefix("> ").replace("|1|", "1"))["method"]
    await scene.clear()
    params = await scene.params(REST_NAMES[method])
    if name == "Trading/GetOrder":
        params["orderId"] = await scene.trailing()
    if isinstance(json.loads(recorded)["result"], list) and method.startswith("ticker"):
        params = {"symbols": [SYMBOL]}
    frame = scene.sender.frame(method, params, ident="x")
    if "apiKey" not in asked:
        frame = json.dumps({"id": "x", "method": method, "params": params})
    async with scene.sender.exchange.session.ws_connect(scene.sender.exchange.ws_url + "/ws-api/v3") as socket:
        await socket.send_str(frame)
        told = json.loads(await asyncio.wait_for(socket.receive_str(), DEADLINE_SECONDS))
    compare(f"Socket/{name}", json.loads(recorded), told)


@pytest.mark.parametrize("name", in_scope(SUBSCRIPTIONS))
async def test_an_event_is_shaped_as_the_recorded_one(scene: SpotScene, name: str) -> None:
    asked, recorded = re.split(r"^= *\n", SUBSCRIPTIONS[name], maxsplit=1, flags=re.MULTILINE)
    wanted = json.loads(recorded)
    frame = json.loads(asked.splitlines()[0].removeprefix("> ").replace("|1|", "1"))
    user = frame["method"] != "SUBSCRIBE"
    sender = scene.sender
    url = sender.exchange.ws_url + ("/ws-api/v3" if user else "/stream")
    await scene.clear()
    async with sender.exchange.session.ws_connect(url) as socket:
        await socket.send_str(sender.frame(frame["method"], {}) if user else json.dumps(frame | {"id": "1"}))
        answered = json.loads(await asyncio.wait_for(socket.receive_str(), DEADLINE_SECONDS))
        assert answered["id"] == "1"
        told = await _event(scene, socket, wanted["event"]["e"] if user else None)
    compare(f"Subscriptions/{name}", wanted, told)


async def _event(scene: SpotScene, socket: Any, kind: str | None) -> Any:
    """The first event of a kind (any, on a market stream) after the account trades, and is paid."""
    exchange = scene.sender.exchange
    async with asyncio.timeout(DEADLINE_SECONDS):
        await scene.bought()
        await scene.oco()
        await exchange.deposit(scene.sender.account.uid, USDT="1")
        while True:
            told = json.loads(await socket.receive_str())
            if kind is None or told.get("event", {}).get("e") == kind:
                return told


async def test_every_fixture_is_compared_or_out_of_scope_by_name() -> None:
    names = {*ENDPOINTS, *SOCKET, *SUBSCRIPTIONS}
    assert names >= _OUT
    compared = [len(in_scope(found)) for found in (ENDPOINTS, SOCKET, SUBSCRIPTIONS)]
    assert compared == [49, 27, 12]
