"""Which requests come from the pages of other sites, for these may change nothing on the control port."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NOBODYS: Final = frozenset({"localhost", "local", "internal", "svc"})
"""Domains in which nobody can register a name."""


def from_another_site(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a request would change something and was made by a browser for the page of another site.

    Browsers say so themselves by `Sec-Fetch-Site` (w3c.github.io/webappsec-fetch-metadata), but only to HTTPS and
    to their own machine, as behind `kubectl proxy`, where `Host` is the API server's. Elsewhere there is `Origin`,
    which must be the `Host` that was asked. Other clients send neither.
    """
    if method in _READING:
        return False
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("Origin")
    if origin is None:
        return False
    host = origin.partition("://")[2]
    return not host or host != headers.get("Host") or _may_be_rebound(host)


def _may_be_rebound(host: str) -> bool:
    """Whether a host, with its port, has a name that somebody else may let lead to this server (DNS rebinding)."""
    if host.startswith("["):
        return False
    name = host.partition(":")[0]
    try:
        ip_address(name)
    except ValueError:
        return "." in name and name.rpartition(".")[2] not in _NOBODYS
    return False
