"""Promises of the bot's configuration: what is read, what is refused, what counts as tightening."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tradingbot.config import ConfigError, Received, classify_change, load_manifest, load_pod_config, parse_pod_config
from tradingbot_api.bot_http import BotConfig
from tradingbot_api.v1alpha1 import BotSettings

SPEC: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "exchange": {
        "environment": "Paper",
        "baseURL": "http://127.0.0.1:1",
        "credentialsSecretRef": {"name": "keys"},
    },
    "strategy": {"name": "ema-cross", "interval": "1s"},
    "capital": "1000",
    "protection": {"stopLossRatio": "0.02", "takeProfitRatio": "0.04"},
    "risk": {"maxPositionValue": "500", "maxDailyLoss": "50"},
}


def settings(**changes: Any) -> BotSettings:
    return BotSettings.model_validate({**SPEC, **changes})


def manifest(path: Path, **changes: Any) -> Path:
    data = {
        "apiVersion": "tradingbot.dev/v1alpha1",
        "kind": "TradingBot",
        "metadata": {"name": "btcusdt"},
        "spec": SPEC,
        **changes,
    }
    file = path / "bot.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def test_a_manifest_is_the_same_bot_after_a_restart(tmp_path: Path) -> None:
    config = load_manifest(manifest(tmp_path))
    assert config == load_manifest(manifest(tmp_path))
    assert (config.bot.name, config.bot.uid) == ("btcusdt", "local-default-btcusdt")
    assert config.settings == settings()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"kind": "Pod"}, "kind: expected TradingBot, got 'Pod'", id="kind"),
        pytest.param({"metadata": {}}, "metadata.name: expected a name", id="name"),
        pytest.param({"spec": {**SPEC, "capital": 5}}, "spec.capital: expected a decimal number", id="number"),
        pytest.param({"spec": {**SPEC, "replicas": 2}}, "spec.replicas: Extra inputs", id="unknown"),
        pytest.param({"spec": {}}, "spec.symbol: Field required", id="empty"),
    ],
)
def test_a_wrong_manifest_names_the_field(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        load_manifest(manifest(tmp_path, **changes))


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_manifest(tmp_path / "nowhere.yaml")


def test_the_pods_configuration_survives_its_own_json() -> None:
    config = BotConfig(
        revision=3,
        bot={"namespace": "a", "name": "b", "uid": "c"},
        settings=settings(),
    )
    assert parse_pod_config(config.model_dump_json(by_alias=True), "config.json") == Received(config)
    with pytest.raises(ConfigError, match=r"revision: .*greater than or equal to 1"):
        parse_pod_config(config.model_dump_json(by_alias=True).replace('"revision":3', '"revision":0'), "config.json")


IDENTITY = {"namespace": "a", "name": "b", "uid": "c"}


def test_of_a_mounted_file_that_cannot_be_read_it_is_known_whose_it_is_and_whether_it_asks_for_safe_mode(
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"revision": 7, "bot": IDENTITY, "settings": {**SPEC, "capital": 5, "safeMode": True}}))
    received = load_pod_config(file)
    assert received.stand_in
    assert (received.config.revision, received.config.bot.uid) == (7, "c")
    assert (received.config.settings.symbol, received.config.settings.safe_mode) == ("BTCUSDT", True)
    assert [item.field for item in received.unknown] == ["spec.capital"]


@pytest.mark.parametrize("text", ["nothing", "{}", json.dumps({"revision": 1, "bot": IDENTITY})])
def test_a_mounted_file_that_is_no_configuration_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_pod_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("changes", "loosened", "tightened"),
    [
        pytest.param({"capital": "2000"}, ("spec.capital",), (), id="more-capital"),
        pytest.param({"capital": "600"}, (), ("spec.capital",), id="less-capital"),
        pytest.param(
            {"risk": {**SPEC["risk"], "cooldownSeconds": 10, "maxDailyLoss": "40"}},
            ("spec.risk.cooldownSeconds",),
            ("spec.risk.maxDailyLoss",),
            id="shorter-cooldown",
        ),
        pytest.param(
            {"risk": {**SPEC["risk"], "volatility": {"window": 5, "highThreshold": "0.06"}}},
            ("spec.risk.volatility.highThreshold",),
            (),
            id="calmer-view-of-the-market",
        ),
        pytest.param({"safeMode": True}, (), (), id="safe-mode-is-no-limit"),
        pytest.param(
            {"circuitBreaker": {"failureThreshold": 9}}, ("spec.circuitBreaker.failureThreshold",), (), id="breaker"
        ),
    ],
)
def test_each_limit_knows_its_loose_side(
    changes: dict[str, Any], loosened: tuple[str, ...], tightened: tuple[str, ...]
) -> None:
    change = classify_change(settings(), settings(**changes))
    assert (change.immutable, change.loosened, change.tightened) == ((), loosened, tightened)


def test_tightening_is_taken_while_loosening_waits() -> None:
    risk = {"maxPositionValue": "400", "maxDailyLoss": "60", "volatility": {"window": 5, "highThreshold": "0.06"}}
    new = settings(capital="2000", risk=risk, safeMode=True)
    taken = classify_change(settings(), new).tightened_only
    assert (taken.capital, taken.risk.max_position_value, taken.risk.max_daily_loss) == (1000, 400, 50)
    assert (taken.risk.volatility.window, taken.risk.volatility.high_threshold) == (5, Decimal("0.05"))
    assert taken.safe_mode is True
    assert BotSettings.model_validate(taken.model_dump(by_alias=True)) == taken


def test_another_symbol_or_environment_is_another_bot() -> None:
    assert classify_change(settings(), settings(symbol="ETHUSDT")).immutable == ("spec.symbol",)
    testnet = {"environment": "Testnet", "credentialsSecretRef": {"name": "keys"}}
    assert classify_change(settings(), settings(exchange=testnet)).immutable == ("spec.exchange.environment",)
