"""The bot calls the hosts of its environment and no others."""

from __future__ import annotations

from dataclasses import astuple
from urllib.parse import urlsplit

import pytest

from tradingbot.gateway.binance import endpoints
from tradingbot_api.v1alpha1 import Exchange

KEYS = {"credentialsSecretRef": {"name": "keys"}}


@pytest.mark.parametrize(
    ("exchange", "hosts"),
    [
        pytest.param(
            {"environment": "Live"},
            {("https", "api.binance.com"), ("wss", "ws-api.binance.com:443"), ("wss", "stream.binance.com:9443")},
            id="live",
        ),
        pytest.param(
            {"environment": "Testnet"},
            {
                ("https", "testnet.binance.vision"),
                ("wss", "ws-api.testnet.binance.vision"),
                ("wss", "stream.testnet.binance.vision"),
            },
            id="testnet",
        ),
        pytest.param(
            {"environment": "Paper", "baseURL": "http://paper-exchange:8080"},
            {("http", "paper-exchange:8080"), ("ws", "paper-exchange:8080")},
            id="paper",
        ),
        pytest.param(
            {"environment": "Paper", "baseURL": "https://paper.example/"},
            None,
            id="paper-with-a-path-is-no-address",
        ),
        pytest.param(
            {"environment": "Paper", "baseURL": "https://paper.example"},
            {("https", "paper.example"), ("wss", "paper.example")},
            id="paper-with-tls",
        ),
    ],
)
def test_every_address_of_an_environment_is_of_its_own_hosts(
    exchange: dict[str, str], hosts: set[tuple[str, str]] | None
) -> None:
    if hosts is None:
        with pytest.raises(ValueError, match="baseURL"):
            Exchange.model_validate(exchange | KEYS)
        return
    found = [urlsplit(url) for url in astuple(endpoints(Exchange.model_validate(exchange | KEYS))) if url is not None]
    assert {(url.scheme, url.netloc) for url in found} == hosts
    assert all(url.username is None for url in found)
