"""The schedule of chaos: what befalls the bots, the operators, the exchange and the cluster, all of it from a seed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, Final

from campaigns.sim_faults import draw_fault


class Harm(StrEnum):
    """What is done."""

    PODS_KILLED = "pods-killed"
    """SIGKILL of the bots' processes."""
    PODS_DELETED = "pods-deleted"
    LEADER_KILLED = "leader-killed"
    LEADER_ENDED = "leader-ended"
    """Its pod is deleted: it hands its Lease over."""
    OPERATORS_KILLED = "operators-killed"
    EXCHANGE_KILLED = "exchange-killed"
    EXCHANGE_REFUSES = "exchange-refuses"
    """Every connection ends, and new ones are refused for a while."""
    CALLS_DISTURBED = "calls-disturbed"
    EVENTS_DISTURBED = "events-disturbed"
    API_SERVER_KILLED = "api-server-killed"
    ETCD_KILLED = "etcd-killed"
    KUBELET_STOPPED = "kubelet-stopped"
    """SIGSTOP, and SIGCONT later."""
    NETWORK_CUT = "network-cut"
    """The bots' packets to the exchange and from it are dropped."""
    PRICE_GAPS = "price-gaps"
    SAFE_MODE = "safe-mode"


SELDOM: Final = (Harm.EXCHANGE_KILLED,)
"""It takes a minute until an exchange with fifty symbols is back."""
BESIDE: Final = (Harm.PODS_KILLED, Harm.PRICE_GAPS, Harm.SAFE_MODE, Harm.LEADER_KILLED)
"""What happens beside another harm, in every second step."""
_EVENTS: Final = ("drop_events", "duplicate_events", "reorder_events", "delay_events", "dead_stream", "cut_connection")


@dataclass(frozen=True)
class Blow:
    """One harm, `after` seconds after its step began, for `lasts` seconds; to these bots, by their number."""

    harm: Harm
    bots: tuple[int, ...] = ()
    after: float = 0.0
    lasts: float = 0.0
    terms: dict[str, Any] = field(default_factory=dict)
    """A fault as the exchange's control port takes it, or the share by which a price gaps."""

    def __str__(self) -> str:
        whom = f" of {len(self.bots)}" if self.bots else ""
        terms = " ".join(str(value) for key, value in self.terms.items() if key in {"kind", "gap"})
        return f"{self.harm}{whom}{' ' + terms if terms else ''}"


def blows(seed: int, step: int, bots: int, without: Collection[Harm] = ()) -> tuple[Blow, ...]:
    """What happens in a step, counted from 1. Pure: each harm once in so many steps, in a new order each time."""
    harms = [harm for harm in Harm if harm not in without]
    turn, place = divmod(step - 1, len(harms))
    Random(f"{seed}/turn/{turn}").shuffle(harms)
    rng = Random(f"{seed}/step/{step}")
    main = harms[place]
    if main in SELDOM and turn % 2:
        main = Harm.PODS_KILLED
    chosen = [main]
    if rng.random() < 0.5:
        chosen.append(rng.choice([harm for harm in BESIDE if harm is not main and harm in harms]))
    return tuple(_blow(harm, rng, bots, beside=place > 0) for place, harm in enumerate(chosen))


def _blow(harm: Harm, rng: Random, bots: int, *, beside: bool) -> Blow:
    after = rng.uniform(1, 12) if beside else 0.0

    def some(most: int) -> tuple[int, ...]:
        return tuple(sorted(rng.sample(range(bots), min(bots, rng.randint(1, most)))))

    match harm:
        case Harm.PODS_KILLED:
            return Blow(harm, some(8), after)
        case Harm.PODS_DELETED:
            return Blow(harm, some(4), after)
        case Harm.CALLS_DISTURBED:
            fault = draw_fault(rng)
            return Blow(harm, some(bots), after, min(fault.pop("for"), 30.0), fault)
        case Harm.EVENTS_DISTURBED:
            fault = {"kind": rng.choice(_EVENTS), "probability": rng.choice((0.3, 1.0))}
            if fault["kind"] == "delay_events":
                fault |= {"seconds": 2, "jitter": 2}
            return Blow(harm, some(bots), after, rng.uniform(5, 30), fault)
        case Harm.EXCHANGE_REFUSES:
            return Blow(harm, (), after, rng.uniform(5, 25))
        case Harm.KUBELET_STOPPED:
            return Blow(harm, (), after, rng.uniform(20, 60))
        case Harm.NETWORK_CUT:
            return Blow(harm, some(8), after, rng.uniform(5, 40))
        case Harm.PRICE_GAPS:
            return Blow(harm, some(5), after, 0.0, {"gap": rng.choice(("-3%", "-1%", "-0.5%", "+0.5%", "+1%"))})
        case Harm.SAFE_MODE:
            return Blow(harm, some(10), after, rng.uniform(15, 40))
        case _:
            return Blow(harm, (), after)
