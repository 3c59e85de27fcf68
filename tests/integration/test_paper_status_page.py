"""The status page of the paper exchange in a real browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from aiohttp import web
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support import waiting
from support.browser import CHROMIUM, DRIVER, MISSING, chromium
from support.signing import Sender
from support.still_market import write_still_market

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=MISSING),
]

SYMBOL = "BTCUSDT"
PREFIX = "/api/v1/namespaces/trading/services/paper-exchange:control/proxy/"
DEADLINE_SECONDS = 20.0
POLICY = "Content-Security-Policy"
MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
T = TypeVar("T")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PaperExchange]:
    """A market that stands still."""
    market = write_still_market(tmp_path_factory.mktemp("still"), BTCUSDT="50000", ETHUSDT="3000")
    async with running_paper_exchange(Options(symbols=(SYMBOL, "ETHUSDT"), market=market)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def account(exchange: PaperExchange) -> TestAccount:
    """An account with both assets."""
    return await exchange.create_account(USDT="10000", BTC="0.5")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chrome]:
    """One browser for the module."""
    opened = chromium(str(tmp_path_factory.mktemp("profile")))
    driver = await asyncio.to_thread(opened.__enter__)
    yield driver
    await asyncio.to_thread(opened.__exit__, None, None, None)


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Chrome, exchange: PaperExchange) -> AsyncIterator[Chrome]:
    """The page, freshly opened and filled; at the end it has called nobody else, and complained of nothing."""
    await exchange.clear_faults()
    await asyncio.to_thread(browser.get, exchange.control_url + "/")
    await seen(browser, "state", "ready")
    yield browser
    called = await asyncio.to_thread(
        browser.execute_script, "return performance.getEntriesByType('resource').map((one) => one.name)"
    )
    assert called
    assert [url for url in called if not url.startswith(exchange.control_url)] == []


async def until(browser: Chrome, what: str, probe: Callable[[Chrome], T]) -> T:
    return await asyncio.to_thread(WebDriverWait(browser, DEADLINE_SECONDS, 0.05).until, probe, what)


def text_of(browser: Chrome, ident: str) -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0]).innerText", ident))


async def seen(browser: Chrome, ident: str, *expected: str) -> str:
    """What an element shows, once all that is expected is in it."""

    def shown(driver: Chrome) -> str | None:
        text = text_of(driver, ident)
        return text if all(one in text for one in expected) else None

    return str(await until(browser, f"{ident}: {', '.join(expected)}", shown))


async def played_at(exchange: PaperExchange, speed: float) -> bool:
    async with exchange.session.get(f"{exchange.control_url}/control/market") as answer:
        return bool((await answer.json())["speed"] == speed)


async def click(browser: Chrome, ident: str) -> None:
    await asyncio.to_thread(lambda: browser.find_element(By.ID, ident).click())


def complaints(browser: Chrome) -> list[str]:
    return [str(one["message"]) for one in browser.get_log("browser")]


async def test_it_shows_book_tape_accounts_with_their_equity_and_orders(
    page: Chrome, exchange: PaperExchange, account: TestAccount
) -> None:
    mine = Sender(exchange, account)
    resting = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "49000"}
    await mine.signed("POST", "/api/v3/order", symbol=SYMBOL, newClientOrderId="mine-1", **resting)
    await mine.signed("POST", "/api/v3/order", symbol=SYMBOL, side="SELL", type="MARKET", quantity="0.1")
    assert (await seen(page, "asks", "50 000.01", "5.00000")).splitlines()[-1].startswith("50 000.01")
    assert (await seen(page, "bids", "49 999.99", "4.90000")).splitlines()[0].startswith("49 999.99")
    assert (await seen(page, "trades", "49 999.99", "0.10000")).splitlines()[0].endswith("0.10000")
    assert (await seen(page, "last", "49 999.99")) == "49 999.99"
    # 10,000 and 4,999.999 less 0.1 %, of which 490 are locked; 0.4 at the last price.
    await seen(page, "accounts", str(account.uid), "14 504.999001 free, 490 locked", "BTC 0.4 free", "34 994.99 USDT")
    row = (await seen(page, "orders", "mine-1")).split()
    assert row[:2] == [str(account.uid), SYMBOL]
    assert row[3:5] == ["BUY", "LIMIT"]
    assert "NEW" in row
    await mine.signed("DELETE", "/api/v3/openOrders", symbol=SYMBOL)
    await seen(page, "orders", "None")
    assert await asyncio.to_thread(complaints, page) == []


async def test_another_symbol_is_shown_when_it_is_chosen_and_a_halted_one_is_marked(
    page: Chrome, exchange: PaperExchange
) -> None:
    path = f"{exchange.control_url}/control/symbols/ETHUSDT"
    async with exchange.session.patch(path, json={"status": "HALT"}) as answer:
        assert answer.status == 200
    await seen(page, "symbols", "ETHUSDT", "HALT")
    await asyncio.to_thread(page.find_elements(By.CSS_SELECTOR, "#symbols button")[1].click)
    await seen(page, "bids", "2 999.99")
    await exchange.session.patch(path, json={"status": "TRADING"})


async def test_what_others_typed_is_shown_as_text_and_never_becomes_markup(
    page: Chrome, exchange: PaperExchange, account: TestAccount
) -> None:
    mine = Sender(exchange, account)
    order = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "40000"}
    placed = await mine.signed("POST", "/api/v3/order", symbol=SYMBOL, **order)
    assert exchange.server is not None
    # The API takes no such id; the page must not rely on it.
    exchange.server.venue.exchange.orders[placed["orderId"]].client_order_id = MARKUP
    fault = {"kind": "error", "code": -1000, "message": MARKUP}
    async with exchange.session.post(f"{exchange.control_url}/control/faults", json=fault) as answer:
        assert answer.status == 201, await answer.text()
    await seen(page, "orders", MARKUP)
    await seen(page, "faults", json.dumps(MARKUP))
    assert await asyncio.to_thread(lambda: page.title) == "Paper exchange"
    assert await asyncio.to_thread(page.find_elements, By.TAG_NAME, "img") == []
    await exchange.clear_faults()
    await mine.signed("DELETE", "/api/v3/openOrders", symbol=SYMBOL)


async def test_even_markup_in_the_page_would_run_nothing_and_call_nobody_else(page: Chrome) -> None:
    script = "document.body.insertAdjacentHTML('beforeend', arguments[0]); return document.body.lastChild.tagName"
    assert await asyncio.to_thread(page.execute_script, script, MARKUP) == "SCRIPT"
    refused = await until(page, "the policy refuses", lambda driver: complaints(driver) or None)
    assert any("Content Security Policy" in one for one in refused)
    assert await asyncio.to_thread(lambda: page.title) == "Paper exchange"
    call = "fetch('http://127.0.0.1:9/').catch((error) => arguments[0](error.message))"
    assert await asyncio.to_thread(page.execute_async_script, call)
    assert any("connect-src" in one for one in await asyncio.to_thread(complaints, page))


async def test_a_fault_is_put_in_force_and_ended_on_the_page(page: Chrome, exchange: PaperExchange) -> None:
    await seen(page, "none", "None")
    await click(page, "start")
    await seen(page, "faults", "rest_status", '"status":503')
    async with exchange.session.get(f"{exchange.base_url}/api/v3/ping") as answer:
        assert answer.status == 503
    end = await asyncio.to_thread(page.find_element, By.CSS_SELECTOR, "#faults button")
    shown = text_of(page, "faults")
    await until(page, "the page looks again", lambda driver: text_of(driver, "faults") != shown)
    await asyncio.to_thread(end.click)  # still the same button
    await seen(page, "none", "None")
    async with exchange.session.get(f"{exchange.base_url}/api/v3/ping") as answer:
        assert answer.status == 200


async def test_every_example_on_the_page_is_a_fault_that_the_exchange_knows(
    page: Chrome, exchange: PaperExchange
) -> None:
    select = await asyncio.to_thread(lambda: Select(page.find_element(By.ID, "example")))
    kinds = [one.text.split(",")[0] for one in select.options]
    assert len(kinds) > 5
    for number, kind in enumerate(kinds):
        await asyncio.to_thread(select.select_by_index, number)
        await click(page, "start")
        await seen(page, "faults", kind)
        assert text_of(page, "refused") == ""
    await click(page, "clear")
    await seen(page, "none", "None")


async def test_a_fault_that_is_refused_tells_why(page: Chrome) -> None:
    script = "document.getElementById('fault').value = arguments[0]"
    await asyncio.to_thread(page.execute_script, script, '{"kind": "rest_status", "status": 200, "seconds": 5}')
    await click(page, "start")
    await seen(page, "refused", "status: expected")


async def test_the_speed_of_the_market_is_chosen_and_shown_on_the_page_and_orders_stay_signed(
    page: Chrome, exchange: PaperExchange, account: TestAccount
) -> None:
    select = await asyncio.to_thread(lambda: Select(page.find_element(By.ID, "speed")))
    await until(page, "real time", lambda _: select.first_selected_option.text == "1 times")
    for chosen, speed in (("60 times", 60), ("paused", 0)):
        await asyncio.to_thread(select.select_by_visible_text, chosen)
        await waiting.until(f"the market is played at {speed}", partial(played_at, exchange, speed))
        await Sender(exchange, account).signed("GET", "/api/v3/account")
    # One that is none of the page's own, and set by somebody else.
    await exchange.set_speed(2.5)
    await until(page, "it is shown", lambda _: select.first_selected_option.text == "2.5 times")
    await exchange.set_speed(1)


async def test_a_page_without_an_answer_says_that_it_is_old(page: Chrome) -> None:
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    await asyncio.to_thread(page.execute_cdp_cmd, "Network.enable", {})
    for offline, state in ((True, "no answer; what is shown is old"), (False, "ready")):
        now: dict[str, Any] = {"offline": offline, **conditions}
        await asyncio.to_thread(page.execute_cdp_cmd, "Network.emulateNetworkConditions", now)
        await seen(page, "state", state)


@asynccontextmanager
async def behind_a_path(exchange: PaperExchange) -> AsyncIterator[str]:
    """The page's address at a proxy that does as `kubectl proxy`: a path before it, and another Host behind it."""

    async def pass_on(request: web.Request) -> web.Response:
        url = f"{exchange.control_url}/{request.match_info['path']}"
        headers = {name: value for name, value in request.headers.items() if name not in ("Connection", "Host")}
        headers["Host"] = "api-server.example:6443"
        body = await request.read()
        call = exchange.session.request(request.method, url, params=request.query, headers=headers, data=body)
        async with call as answer:
            kept = {name: value for name, value in answer.headers.items() if name in ("Content-Type", POLICY)}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    app = web.Application()
    app.router.add_route("*", PREFIX + "{path:.*}", pass_on)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{PREFIX}"
    finally:
        await runner.cleanup()


async def test_the_page_works_behind_a_path_as_of_kubectl_proxy(browser: Chrome, exchange: PaperExchange) -> None:
    await exchange.clear_faults()
    async with behind_a_path(exchange) as url:
        await asyncio.to_thread(browser.get, url)
        await seen(browser, "state", "ready")
        await click(browser, "start")
        await seen(browser, "faults", "rest_status")
        await asyncio.to_thread(browser.find_element(By.CSS_SELECTOR, "#faults button").click)
        await seen(browser, "none", "None")
        select = await asyncio.to_thread(lambda: Select(browser.find_element(By.ID, "speed")))
        await asyncio.to_thread(select.select_by_visible_text, "60 times")
        await waiting.until("the market is played faster", partial(played_at, exchange, 60))
    await exchange.set_speed(1)


@pytest.mark.parametrize("host", ["paper-exchange", "localhost"])
async def test_the_page_works_by_any_name_of_its_own(browser: Chrome, exchange: PaperExchange, host: str) -> None:
    await exchange.clear_faults()
    await asyncio.to_thread(browser.get, exchange.control_url.replace("127.0.0.1", host))
    await seen(browser, "state", "ready")
    await click(browser, "start")
    await seen(browser, "faults", "rest_status")
    await exchange.clear_faults()


async def test_a_name_that_its_owner_let_lead_to_the_exchange_changes_nothing(
    browser: Chrome, exchange: PaperExchange
) -> None:
    await exchange.clear_faults()
    await asyncio.to_thread(browser.get, exchange.control_url.replace("127.0.0.1", "rebound.example"))
    await seen(browser, "state", "ready")
    await click(browser, "start")
    await seen(browser, "refused", "the page of another site")
    async with exchange.session.get(f"{exchange.control_url}/control/faults") as answer:
        assert (await answer.json())["faults"] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "paper-exchange"])
async def test_the_page_of_another_site_changes_nothing(browser: Chrome, exchange: PaperExchange, host: str) -> None:
    await exchange.clear_faults()
    await asyncio.to_thread(browser.get, f"{exchange.base_url}/api/v3/ping".replace("127.0.0.1", "other.example"))
    call = """
      const done = arguments[arguments.length - 1];
      const request = {method: 'POST', mode: 'no-cors', body: arguments[1]};
      fetch(arguments[0], request).then(() => done('sent'), () => done('cut'));
    """
    fault = json.dumps({"kind": "rest_status", "status": 503, "seconds": 20})
    url = f"{exchange.control_url}/control/faults"
    target = url.replace("127.0.0.1", host)
    assert await asyncio.to_thread(browser.execute_async_script, call, target, fault) == "sent"
    async with exchange.session.get(url) as answer:
        assert (await answer.json())["faults"] == []
