"""Promises of kill switches: who is held, at which level, what alone releases, and what the status tells of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.operator_objects import NOW, RUNNING, seen_bot, word
from tradingbot_api import names
from tradingbot_api.bot_http import DrainPhase, DrainStatus, ImposedCause
from tradingbot_api.conditions import Reason
from tradingbot_api.kill_switch import KillSwitchStatus
from tradingbot_api.v1alpha1 import PositionStatus, SafeModeCause, SafeModeStatus
from tradingbot_operator import desired, status
from tradingbot_operator.bot_link import Word
from tradingbot_operator.fleet import Ledger, Memory
from tradingbot_operator.imposed import Impositions
from tradingbot_operator.inventory import BotKey
from tradingbot_operator.kill_switch import (
    FIGURES_SECONDS,
    Answer,
    SeenClusterKillSwitch,
    SeenKillSwitch,
    SeenSwitch,
    answer,
    compose,
    holds_position,
    imposed_by,
    spacing,
)
from tradingbot_operator.status import Finding, Gone

SPOT = {"team": "spot"}


def switch(
    name: str = "incident", *, everywhere: bool = False, metadata: dict[str, Any] | None = None, **spec: Any
) -> SeenSwitch:
    """A kill switch of the bots' namespace, or of all."""
    kind = SeenClusterKillSwitch if everywhere else SeenKillSwitch
    fixed = {
        "name": name, "uid": f"uid-{name}", "resourceVersion": "5", "generation": 1,
        "creationTimestamp": "2026-11-22T11:00:00Z", **({} if everywhere else {"namespace": "trading"}),
    }  # fmt: skip
    return kind.of(
        {"metadata": {**fixed, **(metadata or {})}, "spec": {"selector": {}, "reason": "exchange incident", **spec}}
    )


def on(
    bot: Any, *switches: SeenSwitch, held: tuple[ImposedCause, ...] = (), confirmed: bool = False, later: float = 0.0
) -> dict[str, str]:
    """The levels that are imposed, by cause."""
    now = NOW + timedelta(seconds=later)
    found = imposed_by(switches, bot, {c.id: c for c in held}, now=now, confirmed=lambda _: confirmed)
    return {cause.id: cause.level for cause in found}


# --- who is held ---

LABELS = st.dictionaries(st.sampled_from(["team", "tier"]), st.sampled_from(["spot", "a", "b"]), max_size=2)
EXPRESSIONS = st.lists(
    st.one_of(
        st.builds(
            lambda key, operator, values: {"key": key, "operator": operator, "values": values},
            st.sampled_from(["team", "tier"]),
            st.sampled_from(["In", "NotIn"]),
            st.lists(st.sampled_from(["spot", "a", "b"]), min_size=1, max_size=2),
        ),
        st.builds(
            lambda key, operator: {"key": key, "operator": operator},
            st.sampled_from(["team", "tier"]),
            st.sampled_from(["Exists", "DoesNotExist"]),
        ),
    ),
    max_size=2,
)
SWITCHES = st.lists(
    st.builds(
        lambda name, everywhere, labels, expressions, policy, ends, release: switch(
            name,
            everywhere=everywhere,
            selector={"matchLabels": labels, "matchExpressions": expressions},
            policy=policy,
            **({} if ends is None else {"expiryTime": (NOW + timedelta(seconds=ends)).isoformat()}),
            **({"release": True} if release else {}),
        ),
        st.sampled_from(["a", "b", "c"]),
        st.booleans(),
        LABELS,
        EXPRESSIONS,
        st.sampled_from(["Hold", "ClosePosition"]),
        st.sampled_from([None, -1, 1]),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda one: one.cause_id,
)
HELD = st.lists(
    st.builds(
        lambda prefix, name, level: ImposedCause(
            id=f"{prefix}/{name}", source="KillSwitch", reason="KillSwitch", level=level
        ),
        st.sampled_from(["kill-switch", "cluster-kill-switch"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["NoNewEntries", "ReduceOnly"]),
    ),
    max_size=3,
    unique_by=lambda cause: cause.id,
)


def kubernetes_matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """What Kubernetes says of a label selector, written down a second time."""
    for key, value in selector["matchLabels"].items():
        if key not in labels or labels[key] != value:
            return False
    for item in selector["matchExpressions"]:
        there = item["key"] in labels
        if item["operator"] == "Exists" and not there:
            return False
        if item["operator"] == "DoesNotExist" and there:
            return False
        if item["operator"] == "In" and not (there and labels[item["key"]] in item["values"]):
            return False
        if item["operator"] == "NotIn" and there and labels[item["key"]] in item["values"]:
            return False
    return True


UNREADABLE = {"capital": "many"}
SPECS = st.sampled_from([{}, {"safeMode": True}, UNREADABLE, {"safeMode": True, **UNREADABLE}])


@given(SWITCHES, HELD, LABELS, st.booleans(), SPECS)
def test_no_bot_that_a_switch_in_force_selects_ever_has_a_weaker_level_and_none_is_released_unasked(
    switches: list[SeenSwitch],
    held: list[ImposedCause],
    labels: dict[str, str],
    confirmed: bool,
    spec: dict[str, Any],
) -> None:
    bot = seen_bot(metadata={"labels": labels}, **spec)
    before = {cause.id: cause for cause in held}
    settings = desired.settings_of(desired.parse_spec(seen_bot()))
    stored = desired.bot_config(desired.Identity.of(bot), settings, 7, (), tuple(held))
    ledger = Ledger(stored, "uid", "1")
    found = tuple(imposed_by(switches, bot, before, now=NOW, confirmed=lambda _: confirmed))
    if "capital" not in spec or bot.safe_mode or found:
        ledger.want_spec(bot, (), found)
    has = {cause.id: cause.level for cause in ledger.config(bot).imposed}
    for one in switches:
        if one.ended(NOW) is None and kubernetes_matches(one.spec["selector"], labels):
            assert has[one.cause_id] == one.level
    ended = {one.cause_id for one in switches if one.ended(NOW) is not None and confirmed}
    assert before.keys() - has.keys() <= ended
    assert bool(ledger.config(bot).sparse()["settings"].get("safeMode")) == bool(has or bot.safe_mode)


def test_a_bot_that_was_held_is_released_by_a_confirmed_end_or_by_a_human_and_by_nothing_else() -> None:
    bot, one = seen_bot(metadata={"labels": SPOT}), switch(selector={"matchLabels": SPOT})
    held = (one.cause,)
    unlabelled = seen_bot()
    assert on(unlabelled, one) == {}
    assert on(unlabelled, one, held=held) == {"kill-switch/incident": "NoNewEntries"}, "its label was taken off"
    assert on(bot, held=held) == {"kill-switch/incident": "NoNewEntries"}, "the switch vanished"
    released = switch(selector={"matchLabels": SPOT}, release=True)
    assert on(bot, released, held=held) == {"kill-switch/incident": "NoNewEntries"}, "nobody asked the API server yet"
    assert on(bot, released, held=held, confirmed=True) == {}
    assert on(bot, released) == {}, "one that is made later"
    annotated = {"annotations": {names.CLEAR_ANNOTATION: "kill-switch/incident"}}
    for cleared in (seen_bot(metadata=annotated), seen_bot(metadata={**annotated, "labels": {"team": "other"}})):
        assert on(cleared, held=held) == {}
        assert on(cleared, one, held=held) == {}
    still_selected = seen_bot(metadata={**annotated, "labels": SPOT})
    assert on(still_selected, one, held=held) == {"kill-switch/incident": "NoNewEntries"}


def test_an_orphaned_cause_says_how_a_human_ends_it() -> None:
    (cause,) = imposed_by([], seen_bot(), {"kill-switch/incident": switch().cause}, now=NOW, confirmed=lambda _: True)
    assert cause.clears.endswith("kubectl annotate tradingbot NAME tradingbot.dev/clear=kill-switch/incident")


def test_a_switch_is_in_force_until_its_expiry_and_after_that_holds_nobody_new() -> None:
    one = switch(expiryTime="2026-11-22T12:00:10Z", policy="ClosePosition")
    assert on(seen_bot(), one, later=9.9) == {"kill-switch/incident": "ReduceOnly"}
    assert on(seen_bot(), one, later=10.0) == {}
    assert on(seen_bot(), one, held=(one.cause,), later=10.0, confirmed=True) == {}


def test_a_switch_that_was_past_when_it_was_made_releases_nobody_whom_one_of_its_name_held() -> None:
    held, past = (switch().cause,), "2026-11-22T11:00:00Z"
    made_past = switch(expiryTime=past)
    assert made_past.past_when_made
    assert on(seen_bot(), made_past, held=held, confirmed=True) == {"kill-switch/incident": "NoNewEntries"}
    edited = switch(expiryTime=past, metadata={"generation": 2})
    assert on(seen_bot(), edited, held=held, confirmed=True) == {}, "somebody who may change it ended it"


def test_a_switch_of_another_namespace_holds_nobody_and_one_of_the_cluster_everybody() -> None:
    other = switch(metadata={"namespace": "elsewhere"})
    assert on(seen_bot(), other, switch("all", everywhere=True)) == {"cluster-kill-switch/all": "NoNewEntries"}


def test_a_switch_that_this_version_cannot_read_holds_all_and_sells_nothing() -> None:
    assert on(seen_bot(), switch(policy="Hedge", selector=7)) == {"kill-switch/incident": "NoNewEntries"}


def test_causes_of_others_that_nobody_here_knows_stay() -> None:
    stranger = ImposedCause(id="fleet/loss", source="Fleet", reason="FleetLoss", level="NoNewEntries")
    assert Impositions().on(seen_bot(), (stranger,)) == (stranger,)


# --- what it tells ---


def told(causes: tuple[ImposedCause, ...] = (), *, acknowledged: bool = True, **more: Any) -> Any:
    """The status of a bot that tells these causes, as a step makes it."""
    safe = SafeModeStatus(
        level="NoNewEntries", engaged=bool(causes), acknowledged=bool(causes) and acknowledged,
        causes=[SafeModeCause(**cause.model_dump(exclude={"message"})) for cause in causes],
    )  # fmt: skip
    fields: dict[str, Any] = {
        "now": NOW, "bot": seen_bot(), "accepted": Finding.good(), "claim": Finding.good(), "pod": RUNNING,
        "pod_missing": "", "word": word(safe_mode=safe), "reachable": Finding.good(), "revision": 1,
        "imposed": (switch().cause,),
    }  # fmt: skip
    return status.compose(status.Observed(**{**fields, **more}))


SILENT = {"word": None, "reachable": Finding.bad(Reason.NO_HEARTBEAT, "silence")}
ANSWERS = [
    pytest.param(None, False, Reason.STARTING, id="not-looked-at"),
    pytest.param(told(), False, Reason.NOT_ENGAGED, id="on-its-way"),
    pytest.param(told((switch("other").cause,)), False, Reason.POD_OUTDATED, id="engaged-by-another"),
    pytest.param(told((switch().cause,), acknowledged=False), True, Reason.ENTRIES_WORKING, id="entries-working"),
    pytest.param(told((switch().cause,)), True, "", id="acknowledged"),
    pytest.param(told(**SILENT), False, Reason.BOT_UNREACHABLE, id="unreachable"),
    pytest.param(told(**SILENT, gone=Gone(0.0)), True, "", id="gone"),
    pytest.param(told(**SILENT, gone=Gone(None)), True, Reason.UNKNOWN_ORDER, id="gone-and-an-order-may-rest"),
    pytest.param(told((switch().cause,), revision=2), True, Reason.CONFIG_PENDING, id="an-older-configuration"),
]


@pytest.mark.parametrize(("made", "engaged", "pending"), ANSWERS)
def test_a_bot_has_acknowledged_only_by_its_own_word_or_when_it_is_certainly_gone(
    made: Any, engaged: bool, pending: str
) -> None:
    found = answer(switch(), seen_bot(), made, holding=False)
    assert (found.engaged, found.acknowledged.holds) == (engaged, not pending)
    assert not pending or found.acknowledged.reason == pending
    assert found.acknowledged.holds or found.acknowledged.message


def test_a_bot_of_a_former_release_acknowledges_hold_and_not_what_it_cannot_do() -> None:
    spec = ImposedCause(id="spec", source="Spec", reason=Reason.SPEC, level="NoNewEntries")
    assert answer(switch(), seen_bot(), told((spec,)), holding=True).acknowledged.holds
    closes = switch(policy="ClosePosition")
    found = answer(closes, seen_bot(), told((spec,), imposed=(closes.cause,)), holding=True)
    assert (found.acknowledged.reason, found.engaged) == (Reason.POD_OUTDATED, False)
    assert "sell" in found.acknowledged.message


def answers(count: int, pending: int, **more: Any) -> list[Answer]:
    waiting, good = Finding.bad(Reason.BOT_UNREACHABLE, "silence"), Finding.good()
    return [
        Answer(
            BotKey("trading", f"b{n:04}"), n >= pending, waiting if n < pending else good, more.get("holding", False)
        )
        for n in range(count)
    ]


def phases(one: SeenSwitch, made: list[Answer], *, later: float = 0.0) -> tuple[Any, ...]:
    made_status = compose(one, made, NOW + timedelta(seconds=later))
    return made_status.phase, *((item.type, item.status) for item in made_status.conditions)


def test_the_status_tells_how_far_it_is_and_who_has_not_acknowledged_and_why() -> None:
    one = switch()
    made = compose(one, answers(120, 60, holding=True), NOW)
    assert (made.bots, made.engaged, made.acknowledged, made.unacknowledged, made.holding) == (120, 60, 60, 60, 120)
    assert [item.name for item in made.pending] == [f"b{n:04}" for n in range(50)]
    assert {(item.namespace, item.reason, item.message) for item in made.pending} == {
        ("trading", "BotUnreachable", "silence")
    }
    assert phases(one, answers(3, 1)) == ("Engaging", ("Active", "True"), ("Acknowledged", "False"))
    assert phases(one, answers(3, 0)) == ("Engaged", ("Active", "True"), ("Acknowledged", "True"))
    assert phases(one, []) == ("NoBots", ("Active", "True"), ("Acknowledged", "Unknown")), "a wrong selector is seen"
    released = switch(release=True)
    assert phases(released, answers(3, 0)) == ("Releasing", ("Active", "True"), ("Acknowledged", "False"))
    assert phases(released, []) == ("Released", ("Active", "False"), ("Acknowledged", "False"))
    assert phases(switch(expiryTime="2026-11-22T12:00:10Z"), [], later=11)[0] == "Expired"
    deleted = compose(switch(metadata={"deletionTimestamp": "2026-11-22T12:00:00Z"}), answers(1, 0), NOW)
    assert "Release it: kubectl patch killswitch -n trading incident" in deleted.conditions[0].message


def test_a_thousand_bots_are_not_a_thousand_writes_and_an_idle_switch_writes_nothing() -> None:
    one = switch()
    stands = compose(one, answers(1000, 900), NOW)
    assert spacing(KillSwitchStatus(), stands) == 0.0
    assert spacing(stands, compose(one, answers(1000, 899), NOW)) == FIGURES_SECONDS
    assert spacing(stands, compose(one, answers(1000, 0), NOW)) == 0.0
    assert spacing(stands, compose(one, answers(1000, 900), NOW + timedelta(hours=1))) is None


def test_a_position_is_counted_as_long_as_it_is_known() -> None:
    memory = Memory("uid", BotKey("trading", "btcusdt"))
    assert not holds_position(None)
    assert not holds_position(memory)
    held = PositionStatus(side="Long", quantity="0.5", average_price="1", value="1", validated=True)
    memory.last = Word(word(position=held), 1.0)
    assert holds_position(memory)
    memory.drained = DrainStatus(phase=DrainPhase.DRAINED, remaining=["position 0.5 BTC, protected by list 3"])
    assert holds_position(memory)
    memory.drained = DrainStatus(phase=DrainPhase.DRAINED, remaining=[])
    assert not holds_position(memory)
