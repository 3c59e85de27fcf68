"""The control port: who may change something there, by what browsers tell of the page that asks."""

from __future__ import annotations

import pytest

from paper_exchange.server.cross_site import from_another_site

API_SERVER = "10.0.0.1:6443"


def headers(host: str, origin: str | None = None, site: str | None = None) -> dict[str, str]:
    """Those of a request."""
    given = {"Host": host, "Origin": origin, "Sec-Fetch-Site": site}
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(headers("paper-exchange:8081"), id="a client that is no browser"),
        pytest.param(headers("exchange.example.com"), id="the same, by a public name"),
        pytest.param(headers("127.0.0.1:8081", "http://127.0.0.1:8081", "same-origin"), id="the page, port-forward"),
        pytest.param(headers(API_SERVER, "http://127.0.0.1:8001", "same-origin"), id="the page, kubectl proxy"),
        pytest.param(headers(API_SERVER, "https://exchange.example.com", "same-origin"), id="the page, by HTTPS"),
        pytest.param(headers("127.0.0.1:8081", None, "none"), id="typed by hand"),
        pytest.param(headers("10.0.0.5:8081", "http://10.0.0.5:8081"), id="the page, by an address"),
        pytest.param(headers("[fd00::5]:8081", "http://[fd00::5]:8081"), id="the page, by an IPv6 address"),
        pytest.param(headers("10.0.0.5", "http://10.0.0.5"), id="the page, port 80"),
        pytest.param(headers("paper-exchange:8081", "http://paper-exchange:8081"), id="the page, by its service"),
        pytest.param(headers("pe.x.svc:8081", "http://pe.x.svc:8081"), id="the page, by its service and namespace"),
        pytest.param(headers("pe.x.svc.cluster.local", "http://pe.x.svc.cluster.local"), id="the page, in a cluster"),
        pytest.param(headers("localhost:8081", "http://localhost:8081"), id="the page, an old browser"),
    ],
)
def test_clients_and_the_own_page_change_what_they_want(method: str, given: dict[str, str]) -> None:
    assert not from_another_site(method, given)


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(headers("127.0.0.1:8081", "http://evil.example", "cross-site"), id="another site"),
        pytest.param(headers("127.0.0.1:8081", "http://127.0.0.1:3000", "same-site"), id="another port"),
        pytest.param(headers(API_SERVER, "http://evil.example", "cross-site"), id="another site, kubectl proxy"),
        pytest.param(headers("10.0.0.5:8081", "http://evil.example"), id="another site, to an address"),
        pytest.param(headers("10.0.0.5:8081", "http://10.0.0.5:3000"), id="another port of an address"),
        pytest.param(headers("10.0.0.5:8081", "null"), id="a page without an origin"),
        pytest.param(headers("evil.example:8081", "http://evil.example:8081"), id="a rebound name"),
        pytest.param(headers("evil.example.:8081", "http://evil.example.:8081"), id="a rebound name with its root"),
        pytest.param(headers("10.0.0.5.evil.example", "http://10.0.0.5.evil.example"), id="a name like an address"),
        pytest.param(headers("localhost.evil.example", "http://localhost.evil.example"), id="a name like localhost"),
        pytest.param(headers("", "null"), id="neither origin nor host"),
    ],
)
def test_the_page_of_another_site_changes_nothing(method: str, given: dict[str, str]) -> None:
    assert from_another_site(method, given)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_everybody_may_read(method: str) -> None:
    assert not from_another_site(method, headers("10.0.0.5:8081", "http://evil.example", "cross-site"))
