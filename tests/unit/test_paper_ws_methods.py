"""The WebSocket API has a method for every REST endpoint of the exchange."""

from __future__ import annotations

from paper_exchange.server.ws_methods import METHODS
from support.paper_rest import RestDesk


def test_every_endpoint_has_a_method() -> None:
    endpoints = {route for route in RestDesk().api.routes if route[1].startswith("/api/v3/")}
    assert endpoints - set(METHODS.values()) == set()
    assert len(set(METHODS.values())) == len(METHODS)
