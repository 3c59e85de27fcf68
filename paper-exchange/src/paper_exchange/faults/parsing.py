"""Faults as people write them, and as they are told again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from paper_exchange.faults.fields import Field, Read, invalid, number, one_of, read_object, some, text, whole
from paper_exchange.faults.kinds import KINDS, LONGEST
from paper_exchange.faults.model import Fault, Stage

_MOST: Final = 10**9


@dataclass(frozen=True, slots=True)
class Known:
    """What filters may name: a fault that could never befall anything is an error."""

    symbols: Collection[str]
    endpoints: Collection[str]


def parse_fault(name: str, given: object, known: Known) -> Fault:
    """A fault from {"kind": ..., its parameters, filters and times}; ControlInvalidError names the field in `name`."""
    where = f"{name}." if name else ""
    if not isinstance(given, dict):
        raise invalid(name or "body", 'an object such as {"kind": "lost_answer", "count": 1}', given)
    kind = one_of(*KINDS)(f"{where}kind", given.get("kind"))
    spec = KINDS[kind]
    of_calls = spec.stage is not Stage.EVENT
    common = _COMMON | (_of_calls(known) if of_calls else _OF_EVENTS) | {"symbols": Field(_symbols(known), ())}
    values = read_object(name, given, {"kind": Field(text)} | spec.parameters | common)
    parameters = {parameter: values[parameter] for parameter in spec.parameters}
    lasting = values["for"]
    if kind == "rest_status":
        # The oldest kind tells its length by a parameter.
        lasting = parameters["seconds"]
    return Fault(
        kind,
        spec.stage,
        spec.complete(parameters),
        accounts=values["accounts"],
        symbols=values["symbols"],
        endpoints=values.get("endpoints") or spec.endpoints,
        streams=values.get("streams") or spec.streams,
        events=values.get("events", ()),
        probability=values["probability"],
        seed=values["seed"],
        count=values["count"],
        skip=values["skip"],
        begin=values["from"],
        seconds=lasting,
        nth=values["nth"],
    )


def write_fault(fault: Fault) -> dict[str, Any]:
    """A fault as `parse_fault` takes it; what is as it is for every fault is left out."""
    spec = KINDS[fault.kind]
    told: dict[str, Any] = {"kind": fault.kind}
    told |= {name: fault.parameters[name] for name in spec.parameters if fault.parameters.get(name) is not None}
    lasting = "seconds" if fault.kind == "rest_status" else "for"
    optional: dict[str, tuple[Any, Any]] = {
        "accounts": (list(fault.accounts), []),
        "symbols": (list(fault.symbols), []),
        "endpoints": (list(fault.endpoints), list(spec.endpoints)),
        "streams": (list(fault.streams), list(spec.streams)),
        "events": (list(fault.events), []),
        "probability": (fault.probability, 1.0),
        "seed": (fault.seed, None),
        "count": (fault.count, None),
        "skip": (fault.skip, 0),
        "from": (fault.begin, 0.0),
        lasting: (fault.seconds, None),
        "nth": (None if fault.nth is None else [list(run) for run in fault.nth], None),
    }
    return told | {name: value for name, (value, usual) in optional.items() if value != usual}


def _symbols(known: Known) -> Read:
    return some(one_of(*known.symbols))


def _of_calls(known: Known) -> dict[str, Field]:
    def read(name: str, given: object) -> str:
        if not isinstance(given, str) or not any(fnmatchcase(one, given) for one in known.endpoints):
            raise invalid(
                name,
                'method and path such as "POST /api/v3/order", or a method of the WebSocket API such as "order.place", '
                "or a pattern with * that one of them fits",
                given,
            )
        return given

    return {"endpoints": Field(some(read), ())}


def _run(name: str, given: object) -> tuple[int, int]:
    pair = [given, given] if isinstance(given, int) else given
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(one) is int and one > 0 for one in pair):
        raise invalid(name, "a number above 0, or the first and the last of several such as [3, 5]", given)
    return pair[0], pair[1]


def _runs(name: str, given: object) -> tuple[tuple[int, int], ...]:
    """A list, which may be empty: the fault befell nothing."""
    if not isinstance(given, list):
        raise invalid(name, "a list such as [1, [3, 5]]", given)
    return tuple(_run(f"{name}[{place}]", one) for place, one in enumerate(given))


_COMMON: Final = {
    "accounts": Field(some(whole(1, 2**63 - 1)), ()),
    "probability": Field(number(0, 1, above=True), 1.0),
    "seed": Field(whole(0, 2**63 - 1), None),
    "count": Field(whole(1, _MOST), None),
    "skip": Field(whole(0, _MOST), 0),
    "from": Field(number(0, LONGEST), 0.0),
    "for": Field(number(0, LONGEST, above=True), None),
    "nth": Field(_runs, None),
}
_OF_EVENTS: Final = {"streams": Field(some(text), ()), "events": Field(some(text), ())}
