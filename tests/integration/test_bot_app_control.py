"""Promises of the bot's control port: who may use it, what is refused, how the process ends."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from paper_exchange.testing import PaperExchange
from support.bot_process import UID, BotFolder, BotProcess, bot_process, config, settings
from tradingbot_api import names
from tradingbot_api.bot_http import BotStatus, DrainPhase, DrainRequest, ExchangeWait, Grant, RaiseIncarnation
from tradingbot_api.v1alpha1 import PositionPolicy

pytestmark = pytest.mark.integration
CALM = {"parameters": {"fast": 100, "slow": 300}}
"""Averages that do not cross while a test runs."""


@pytest.fixture
def exchange(exchange_beside: PaperExchange) -> PaperExchange:
    return exchange_beside


@pytest.fixture
async def folder(tmp_path: Path, exchange: PaperExchange) -> BotFolder:
    made = BotFolder.make(tmp_path, config(settings(exchange.base_url, strategy=CALM)))
    made.write_keys(await exchange.create_account(USDT="10000"))
    return made


@pytest.fixture
async def bot(folder: BotFolder) -> AsyncIterator[BotProcess]:
    async with bot_process(folder) as running:
        await running.until(lambda status: status.ready)
        yield running


async def test_only_the_operators_certificate_may_control_a_bot(folder: BotFolder, bot: BotProcess) -> None:
    assert (await bot.call("GET", "/v1/info"))[0] == 200
    other_bot = folder.authority.issue("another.bot.tradingbot.dev", datetime.now(UTC), server=True, client=True)
    bot.tls = folder.client_tls(other_bot)
    status, reply = await bot.call("GET", "/v1/info")
    assert (status, reply["code"]) == (403, "NotTheOperator")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{bot.control_url}/v1/info", ssl=False)


async def test_a_bot_begins_in_safe_mode_and_a_grant_releases_it_for_its_time_only(bot: BotProcess) -> None:
    assert [cause.reason for cause in bot.status.safe_mode.causes] == ["AwaitingGrant"]
    assert bot.status.safe_mode.acknowledged
    started = time.monotonic()
    assert (await bot.grant(ttl_seconds=2))[0] == 200
    await bot.until_condition("TradingAllowed", "True", "OK", seconds=2)
    await bot.until(lambda status: status.safe_mode.engaged, seconds=4)
    assert time.monotonic() - started < 3.5
    assert bot.condition("TradingAllowed") == ("False", "AwaitingGrant")


async def test_a_wait_that_another_bot_of_the_address_was_told_stops_every_call_until_its_turn_and_is_told_on(
    bot: BotProcess,
) -> None:
    assert (await bot.grant())[0] == 200
    wait = ExchangeWait(
        bot_uid=UID,
        boot_id=bot.status.boot_id,
        epoch=1,
        until_time=datetime.now(UTC) + timedelta(seconds=3),
        seconds=3,
        turn_seconds=1,
    )
    for wrong, code in ({"boot_id": "x"}, "IdentityMismatch"), ({"epoch": 0}, ""), ({"epoch": -1}, "EpochPast"):
        status, answer = await bot.call("PUT", "/v1/wait", wait.model_copy(update={**wrong, "seconds": 0}))
        assert (status, answer.get("code", "")) == (409 if code else 200, code)
    begun = time.monotonic()
    assert (await bot.call("PUT", "/v1/wait", wait))[0] == 200
    await bot.until_condition("CircuitClosed", "False", "CircuitOpen", seconds=2)
    assert bot.status.api is not None
    calls = bot.status.api.calls
    await bot.until_condition("CircuitClosed", "True", "OK", seconds=10)
    told = [status.api for status in bot.statuses if status.api is not None]
    # It pings the exchange each 2 s: one may have been under way, one may be the first after the wait.
    assert told[-1].calls <= calls + 2
    assert time.monotonic() - begun >= 4
    assert {api.wait_until_time for api in told} == {None, wait.until_time}


async def test_a_wait_of_the_account_with_orders_is_told_on_and_stops_no_call(bot: BotProcess) -> None:
    now = datetime.now(UTC)
    wait = ExchangeWait(
        bot_uid=UID, boot_id=bot.status.boot_id, epoch=1, until_time=now, seconds=0,
        orders_until_time=now + timedelta(seconds=3), orders_seconds=3,
    )  # fmt: skip
    assert (await bot.call("PUT", "/v1/wait", wait))[0] == 200
    await bot.until(lambda status: status.order_use is not None and status.order_use.refused_until_time is not None)
    assert bot.status.order_use is not None
    assert bot.status.order_use.refused_until_time == wait.orders_until_time
    assert bot.condition("CircuitClosed") == ("True", "OK")


@pytest.mark.parametrize(
    ("field", "value"),
    [("bot_uid", "x"), ("boot_id", "x"), ("incarnation", 1), ("revision", 7), ("status_sequence", 10**6)],
)
async def test_a_grant_for_anything_else_is_refused(bot: BotProcess, field: str, value: object) -> None:
    status = bot.status
    grant = Grant(
        bot_uid=UID,
        boot_id=status.boot_id,
        incarnation=status.incarnation or 0,
        revision=status.applied_revision,
        status_sequence=status.sequence,
        epoch=1,
    )
    code, reply = await bot.call("PUT", "/v1/grant", grant.model_copy(update={field: value}))
    assert code == 409, reply
    assert not bot.status.grant.held


async def test_safe_mode_is_engaged_and_acknowledged_over_the_configuration(
    bot: BotProcess, exchange: PaperExchange
) -> None:
    await bot.grant()
    await bot.until(lambda status: not status.safe_mode.engaged)
    started = time.monotonic()
    safe = settings(exchange.base_url, strategy=CALM, safeMode=True)
    assert await bot.call("PUT", "/v1/config", config(safe, 2)) == (200, {"revision": 2, "inForce": True})
    await bot.until(lambda status: status.safe_mode.acknowledged, seconds=2)
    assert time.monotonic() - started < 2
    assert [cause.id for cause in bot.status.safe_mode.causes] == ["spec"]
    await bot.until(lambda status: status.applied_revision == 2, seconds=2)
    normal = settings(exchange.base_url, strategy=CALM)
    assert (await bot.call("PUT", "/v1/config", config(normal, 3)))[0] == 200
    await bot.grant()
    await bot.until(lambda status: not status.safe_mode.engaged)


async def test_invalid_parameters_are_refused_with_their_path_and_the_last_good_ones_stay(
    bot: BotProcess, exchange: PaperExchange
) -> None:
    wrong = settings(exchange.base_url, strategy={"parameters": {"fast": 30, "slow": "x"}})
    status, reply = await bot.call("PUT", "/v1/config", config(wrong, 2))
    assert (status, reply["code"]) == (422, "StrategyParametersInvalid")
    assert [item["field"] for item in reply["fields"]] == ["spec.strategy.parameters.slow"]
    await bot.until_condition("ConfigApplied", "False", "StrategyParametersInvalid", seconds=2)
    assert bot.status.applied_revision == 1
    right = settings(exchange.base_url, strategy={"parameters": {"fast": 90, "slow": 300}})
    assert (await bot.call("PUT", "/v1/config", config(right, 3)))[0] == 200
    await bot.until_condition("ConfigApplied", "True", "OK", seconds=5)


async def test_safe_mode_is_engaged_even_by_a_configuration_that_is_refused(
    bot: BotProcess, exchange: PaperExchange
) -> None:
    wrong = settings(exchange.base_url, strategy={"name": "nope"}, safeMode=True)
    assert (await bot.call("PUT", "/v1/config", config(wrong, 2)))[0] == 422
    await bot.until(lambda status: "spec" in [cause.id for cause in status.safe_mode.causes], seconds=2)


async def test_loosened_limits_wait_for_safe_mode_also_over_a_restart(
    folder: BotFolder, exchange: PaperExchange
) -> None:
    loose = settings(exchange.base_url, strategy=CALM, capital="2000")
    async with bot_process(folder) as bot:
        await bot.until(lambda status: status.ready)
        assert await bot.call("PUT", "/v1/config", config(loose, 2)) == (200, {"revision": 2, "inForce": False})
        await bot.until_condition("ConfigApplied", "False", "LooseningNeedsSafeMode", seconds=2)
        await bot.kill()
    async with bot_process(folder) as bot:
        await bot.until_condition("ConfigApplied", "False", "LooseningNeedsSafeMode")
        assert bot.status.applied_revision == 2
        safe = loose.model_copy(update={"safe_mode": True})
        assert await bot.call("PUT", "/v1/config", config(safe, 3)) == (200, {"revision": 3, "inForce": True})
        await bot.until_condition("ConfigApplied", "True", "OK", seconds=2)


async def test_an_older_configuration_and_another_bots_are_refused(bot: BotProcess, exchange: PaperExchange) -> None:
    newer = settings(exchange.base_url, strategy=CALM, capital="900")
    assert (await bot.call("PUT", "/v1/config", config(newer, 5)))[0] == 200
    assert (await bot.call("PUT", "/v1/config", config(newer, 5)))[0] == 200
    code, reply = await bot.call("PUT", "/v1/config", config(newer, 4))
    assert (code, reply["code"]) == (409, "StaleRevision")
    foreign = config(newer, 6)
    foreign = foreign.model_copy(update={"bot": foreign.bot.model_copy(update={"uid": "other"})})
    code, reply = await bot.call("PUT", "/v1/config", foreign)
    assert (code, reply["code"]) == (409, "IdentityMismatch")
    code, reply = await bot.call("PUT", "/v1/config", config(settings(exchange.base_url, symbol="ETHUSDT"), 7))
    assert (code, reply["fields"][0]["field"]) == (422, "spec.symbol")


async def test_a_greater_incarnation_is_taken_before_the_first_order(bot: BotProcess) -> None:
    status = bot.status
    assert status.incarnation is not None
    request = RaiseIncarnation(bot_uid=UID, boot_id=status.boot_id, minimum=status.incarnation + 1000)
    code, _ = await bot.call("PUT", "/v1/incarnation", request)
    assert code == 200
    await bot.until(lambda later: later.incarnation == request.minimum, seconds=2)


async def test_a_flat_bot_drains_and_never_enters_again(bot: BotProcess) -> None:
    request = DrainRequest(
        bot_uid=UID, boot_id=bot.status.boot_id, position_policy=PositionPolicy.CLOSE_POSITION, deadline_seconds=10
    )
    assert (await bot.call("POST", "/v1/drain", request))[0] == 202
    await bot.until(lambda status: status.drain.phase is DrainPhase.DRAINED, seconds=5)
    assert bot.status.drain.remaining == []
    await bot.grant()
    assert "draining" in [cause.id for cause in bot.status.safe_mode.causes]


async def test_probes_and_metrics_answer_in_plain_http(bot: BotProcess) -> None:
    assert await bot.probe("/healthz") == (200, "ok\n")
    assert await bot.probe("/readyz") == (200, "ok\n")
    code, text = await bot.probe("/metrics")
    assert code == 200
    assert 'tradingbot_safe_mode{reason="AwaitingGrant",symbol="BTCUSDT"} 1.0' in text
    assert 'tradingbot_circuit_breaker_state{state="Closed",symbol="BTCUSDT"} 1.0' in text
    assert 'tradingbot_balance_synced{symbol="BTCUSDT"} 1.0' in text


async def test_sigterm_ends_the_process_in_order(bot: BotProcess) -> None:
    started = time.monotonic()
    bot.process.terminate()
    assert await bot.process.wait() == 0
    assert time.monotonic() - started < 5
    assert '"event": "stopped"' in "".join(bot.log)


async def test_the_bot_shows_the_name_of_its_uid(folder: BotFolder, bot: BotProcess) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(
                f"{bot.control_url}/v1/info",
                ssl=folder.client_tls(),
                server_hostname=names.bot_server_name("00000000-0000-0000-0000-000000000000"),
            )


@pytest.mark.parametrize("revision", [1, 2], ids=["edited-by-hand", "newer"])
async def test_the_mounted_configuration_can_engage_safe_mode_and_nothing_else(
    folder: BotFolder, bot: BotProcess, exchange: PaperExchange, revision: int
) -> None:
    await bot.grant()
    await bot.until(lambda status: not status.safe_mode.engaged)
    folder.write_config(config(settings(exchange.base_url, strategy=CALM, safeMode=True, capital="5000"), revision))
    await bot.until(lambda status: "spec" in [cause.id for cause in status.safe_mode.causes], seconds=5)
    assert bot.status.applied_revision == 1


async def test_a_process_that_cannot_serve_names_the_option_and_ends_with_2(folder: BotFolder) -> None:
    (folder.root / "tls" / "ca.crt").write_text("nothing")
    with pytest.raises(AssertionError, match=r"--tls-dir .*expected tls.crt, tls.key and ca.crt in PEM"):
        async with bot_process(folder):
            pass


async def test_a_second_process_on_one_state_directory_names_the_first_and_ends_with_2(
    folder: BotFolder, bot: BotProcess
) -> None:
    with pytest.raises(AssertionError, match=rf"--state-dir: .*state is in use by process {bot.process.pid} on "):
        async with bot_process(folder):
            pass
    await bot.kill()
    async with bot_process(folder) as again:
        await again.until(lambda status: status.ready)


async def test_an_annotation_on_the_pod_engages_safe_mode_until_a_human_clears_it_also_over_kill_9(
    folder: BotFolder, exchange: PaperExchange
) -> None:
    def engaged(status: BotStatus) -> bool:
        return "annotation" in [cause.id for cause in status.safe_mode.causes]

    folder.write_annotations({"team": "a"})
    async with bot_process(folder) as bot:
        await bot.until(lambda status: status.ready)
        await bot.grant()
        await bot.until(lambda status: not status.safe_mode.engaged)
        folder.write_annotations({"team": "a", names.SAFE_MODE_ANNOTATION: "on"})
        await bot.until(lambda status: engaged(status) and status.safe_mode.acknowledged, seconds=3)
        (cause,) = bot.status.safe_mode.causes
        assert (cause.source, cause.reason, cause.level) == ("Pod", "PodAnnotation", "NoNewEntries")
        folder.write_annotations({"team": "a"})
        await bot.kill()
    calm = settings(exchange.base_url, strategy=CALM)
    async with bot_process(folder) as bot:
        await bot.until(lambda status: status.ready)
        await bot.grant()
        assert engaged(bot.status)
        clearing = config(calm, 2).model_copy(update={"cleared_causes": ["annotation"]})
        assert (await bot.call("PUT", "/v1/config", clearing))[0] == 200
        await bot.until(lambda status: not engaged(status), seconds=3)


async def test_a_field_of_a_newer_operator_is_named_and_does_not_end_the_process(folder: BotFolder) -> None:
    file = folder.root / names.CONFIG_KEY
    data = json.loads(file.read_text())
    data["settings"]["hedge"] = {"ratio": "0.5"}
    file.write_text(json.dumps(data))
    async with bot_process(folder) as bot:
        await bot.until_condition("ConfigApplied", "False", "ConfigInvalid", seconds=15)
        (message,) = [item.message for item in bot.status.conditions if item.type == "ConfigApplied"]
        assert message == "spec.hedge: this bot's version does not know it; update spec.pod.image"
        assert bot.status.safe_mode.engaged
        assert bot.status.applied_revision == 0
        data |= {"revision": 2}
        status, reply = await bot.call_json("PUT", "/v1/config", data)
        assert (status, [item["field"] for item in reply["fields"]]) == (422, ["spec.hedge"])
        del data["settings"]["hedge"]
        assert (await bot.call_json("PUT", "/v1/config", data))[0] == 200
        await bot.until_condition("ConfigApplied", "True", "OK", seconds=15)


def spoil(folder: BotFolder, revision: int, **changes: object) -> dict[str, Any]:
    """Writes the mounted file with an interval that this version does not have; what it held before."""
    file = folder.root / names.CONFIG_KEY
    good: dict[str, Any] = json.loads(file.read_text())
    strategy = {**good["settings"]["strategy"], "interval": "7m"}
    file.write_text(
        json.dumps({**good, "revision": revision, "settings": {**good["settings"], "strategy": strategy, **changes}})
    )
    return good


async def told_of_the_interval(bot: BotProcess) -> None:
    """ConfigApplied is False, and names the field and what came."""
    await bot.until_condition("ConfigApplied", "False", "ConfigInvalid")
    (message,) = [item.message for item in bot.status.conditions if item.type == "ConfigApplied"]
    assert message.startswith("spec.strategy.interval: Input should be '1s', ")
    assert message.endswith("got '7m'")


@pytest.mark.parametrize("safe", [False, True])
async def test_a_value_of_a_newer_operator_leaves_the_last_good_configuration_in_force(
    folder: BotFolder, *, safe: bool
) -> None:
    async with bot_process(folder) as bot:
        await bot.until(lambda status: status.ready)
        await bot.kill()
    spoil(folder, 2, safeMode=safe)
    async with bot_process(folder) as bot:
        await told_of_the_interval(bot)
        await bot.until(lambda status: bot.condition("BalanceSynced")[0] == "True")
        assert (bot.status.applied_revision, bot.status.symbol) == (1, "BTCUSDT")
        # The wish for safe mode counts, whatever else is in the file.
        assert ("spec" in [cause.id for cause in bot.status.safe_mode.causes]) is safe


async def test_a_bot_that_never_had_a_configuration_it_can_read_waits_for_one_and_says_so(folder: BotFolder) -> None:
    good = spoil(folder, 1)
    async with bot_process(folder) as bot:
        await told_of_the_interval(bot)
        assert (bot.status.applied_revision, bot.status.symbol) == (0, "BTCUSDT")
        assert bot.status.safe_mode.engaged
        assert bot.status.account_uid is None
        assert (await bot.call_json("PUT", "/v1/config", {**good, "revision": 2}))[0] == 200
        await bot.until_condition("ConfigApplied", "True", "OK")
        await bot.until(lambda status: status.ready)
        assert (await bot.grant())[0] == 200
        await bot.until_condition("TradingAllowed", "True", "OK")
