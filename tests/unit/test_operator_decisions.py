"""Promises of the operator's small decisions: claims, deletion, queue, inventory, settings, backing off."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from support.operator_objects import UID, raw_pod, seen_bot, seen_pod, word
from support.operator_process import make_authority
from tradingbot_api import names
from tradingbot_api.conditions import Phase
from tradingbot_operator.bot_controller import alarm, news
from tradingbot_operator.bot_objects import made_for_bot
from tradingbot_operator.certainty import confirmed_stopped
from tradingbot_operator.claims import BOOT, HOLDER, INCARNATION, Absences, Claim, Claimant, Standing, lost, standing
from tradingbot_operator.deletion import DeletionFacts, DeletionStep, deletion_step
from tradingbot_operator.fleet import Fleet
from tradingbot_operator.handlers import EndlessBackoff
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod
from tradingbot_operator.leader import lease_name, next_epoch
from tradingbot_operator.settings import SettingsError, load
from tradingbot_operator.work_queue import LONGEST_RETRY_SECONDS, WorkQueue

KEY = BotKey("trading", "btcusdt")


# --- claims ---


def claimant(boot: str = "boot-1", incarnation: int = 10) -> Claimant:
    return Claimant(KEY, UID, "Paper", "1001", "BTCUSDT", boot, incarnation)


@pytest.mark.parametrize(
    ("holder", "boot", "incarnation", "expected"),
    [
        pytest.param(UID, "boot-1", 10, Standing.HELD, id="this-very-start"),
        pytest.param(UID, "boot-0", 9, Standing.RECORD, id="a-later-start"),
        pytest.param(UID, "boot-1", 9, Standing.RECORD, id="raised"),
        pytest.param(UID, "boot-0", 10, Standing.RAISE, id="another-start-has-this-number"),
        pytest.param(UID, "boot-0", 11, Standing.RAISE, id="another-start-has-a-greater-one"),
        pytest.param("other", "boot-1", 1, Standing.FOREIGN, id="another-bot"),
    ],
)
def test_a_claim_is_held_by_one_process_start_of_one_bot(
    holder: str, boot: str, incarnation: int, expected: Standing
) -> None:
    raw = {
        "metadata": {"annotations": {HOLDER: "a/b", BOOT: boot, INCARNATION: str(incarnation)}},
        "spec": {"holderIdentity": holder},
    }
    assert standing(Claim.of(raw), claimant()) is expected


@pytest.mark.parametrize(
    ("name", "holder", "boot", "incarnation", "kept"),
    [
        pytest.param("claim-a", UID, "boot-1", 10, True, id="as-it-was-taken"),
        pytest.param("claim-b", UID, "boot-1", 10, False, id="deleted"),
        pytest.param("claim-a", "other", "boot-1", 10, False, id="taken-by-another-bot"),
        pytest.param("claim-a", UID, "boot-2", 11, False, id="taken-by-a-later-start"),
        pytest.param("claim-a", UID, "boot-1", 11, False, id="raised-by-another-operator"),
    ],
)
def test_a_claim_counts_only_while_its_lease_stands_as_it_was_taken(
    name: str, holder: str, boot: str, incarnation: int, kept: bool
) -> None:
    raw = {
        "metadata": {"name": name, "annotations": {BOOT: boot, INCARNATION: str(incarnation)}},
        "spec": {"holderIdentity": holder},
    }
    assert lost({UID: ("claim-a", "boot-1", 10)}, [raw]) == (set() if kept else {UID})


def test_a_claims_name_tells_no_account_and_differs_by_environment_account_and_symbol() -> None:
    base = claimant()
    assert "1001" not in base.lease_name
    others = [
        Claimant(KEY, UID, "Testnet", "1001", "BTCUSDT", "b", 1),
        Claimant(KEY, UID, "Paper", "1002", "BTCUSDT", "b", 1),
        Claimant(KEY, UID, "Paper", "1001", "ETHUSDT", "b", 1),
    ]
    assert len({base.lease_name, *(item.lease_name for item in others)}) == 4


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("http://paper-a:8080", "http://paper-b:8080", False, id="two-paper-exchanges"),
        pytest.param("http://paper:8080", "http://paper:8081", False, id="two-ports"),
        pytest.param("http://paper:8080", "http://paper.trading.svc:8080", True, id="short-and-long-name"),
        pytest.param("http://paper:80", "http://Paper.trading.svc.cluster.local", True, id="default-port"),
        pytest.param("http://paper:8080", "http://paper.other:8080", False, id="another-namespace"),
        pytest.param("http://10.0.0.1:8080", "http://10.0.0.2:8080", False, id="addresses"),
    ],
)
def test_paper_exchanges_with_the_same_accounts_are_not_taken_for_one(one: str, other: str, same: bool) -> None:
    first, second = (names.exchange_name("Paper", url, "trading") for url in (one, other))
    assert (first == second) is same
    assert names.exchange_name("Paper", "http://paper:99999", "trading")
    assert names.exchange_name("Live", None, "a") == names.exchange_name("Live", None, "b") == "Live"


# --- deletion ---


def facts(**more: bool | float) -> DeletionFacts:
    values = {
        "pod": True,
        "pod_deleting": False,
        "pod_terminated": False,
        "reachable": True,
        "drained": False,
        "marked": True,
        "could_trade": True,
        "claimed_by_other": False,
        "overdue": -60.0,
        "gone_for_sure": False,
        "namespace_going": False,
        **more,
    }
    return DeletionFacts(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(facts(), DeletionStep.DRAIN, id="drain-first"),
        pytest.param(facts(drained=True), DeletionStep.DELETE_POD, id="drained"),
        pytest.param(facts(drained=True, marked=False), DeletionStep.MARK, id="noted-before-its-pod-ends"),
        pytest.param(
            facts(drained=True, marked=False, overdue=0.0),
            DeletionStep.DELETE_POD,
            id="no-note-past-the-deadline",
        ),
        pytest.param(facts(reachable=False), DeletionStep.WAIT, id="it-may-come-back"),
        pytest.param(facts(reachable=False, could_trade=False), DeletionStep.DELETE_POD, id="never-traded"),
        pytest.param(facts(could_trade=False), DeletionStep.DRAIN, id="a-live-bot-is-always-asked"),
        pytest.param(facts(claimed_by_other=True), DeletionStep.DELETE_POD, id="the-position-is-the-claim-holders"),
        pytest.param(
            facts(claimed_by_other=True, pod=False, gone_for_sure=True), DeletionStep.RELEASE, id="no-pod-and-no-claim"
        ),
        pytest.param(facts(overdue=0.0), DeletionStep.DELETE_POD, id="deadline"),
        pytest.param(facts(reachable=False, overdue=1.0), DeletionStep.DELETE_POD, id="deadline-of-a-silent-bot"),
        pytest.param(facts(pod_deleting=True, drained=True), DeletionStep.WAIT, id="the-kubelet-ends-it"),
        pytest.param(facts(pod_deleting=True, overdue=39.0), DeletionStep.WAIT, id="the-kubelet-may-still-end-it"),
        pytest.param(facts(pod_deleting=True, overdue=61.0), DeletionStep.LET_GO, id="lost-node-with-a-grant"),
        pytest.param(
            facts(pod_deleting=True, overdue=0.0, namespace_going=True),
            DeletionStep.LET_GO,
            id="going-namespace-at-the-deadline",
        ),
        pytest.param(
            facts(pod_deleting=True, overdue=61.0, gone_for_sure=True), DeletionStep.RELEASE, id="lost-node-after-it"
        ),
        pytest.param(facts(pod=False, drained=True, gone_for_sure=True), DeletionStep.RELEASE, id="drained-and-gone"),
        pytest.param(
            facts(pod=False, could_trade=False, gone_for_sure=True), DeletionStep.RELEASE, id="no-pod-never-traded"
        ),
        pytest.param(facts(pod=False, gone_for_sure=True), DeletionStep.MAKE_POD, id="lost-pod-must-drain"),
        pytest.param(facts(pod=False, overdue=0.0, gone_for_sure=True), DeletionStep.RELEASE, id="lost-pod-too-late"),
        pytest.param(facts(pod=False), DeletionStep.WAIT, id="vanished-pod"),
        pytest.param(facts(pod=False, overdue=0.0), DeletionStep.LET_GO, id="vanished-pod-at-the-deadline"),
        pytest.param(
            facts(pod=False, gone_for_sure=True, namespace_going=True),
            DeletionStep.RELEASE,
            id="no-pod-can-be-made",
        ),
        pytest.param(facts(pod=False, namespace_going=True), DeletionStep.WAIT, id="vanished-pod-in-a-going-namespace"),
        pytest.param(facts(pod_terminated=True, drained=True, gone_for_sure=True), DeletionStep.RELEASE, id="ended"),
        pytest.param(facts(pod_terminated=True, gone_for_sure=True), DeletionStep.DELETE_POD, id="evicted-undrained"),
        pytest.param(
            facts(pod_terminated=True, pod_deleting=True, gone_for_sure=True), DeletionStep.WAIT, id="evicted-and-going"
        ),
        pytest.param(
            facts(pod_terminated=True, overdue=0.0, gone_for_sure=True), DeletionStep.RELEASE, id="evicted-at-deadline"
        ),
    ],
)
def test_a_deletion_drains_waits_and_releases_in_this_order(seen: DeletionFacts, expected: DeletionStep) -> None:
    assert deletion_step(seen) is expected


@pytest.mark.parametrize(
    ("vanished", "annotation", "confirmed"),
    [
        pytest.param("pod-2", "pod-2", True, id="this-pod"),
        pytest.param("pod-2", "pod-1", False, id="an-older-word"),
        pytest.param("", "pod-1", False, id="a-pod-that-was-not-seen"),
        pytest.param("", "", False, id="nothing"),
    ],
)
def test_only_a_word_on_the_very_pod_that_vanished_counts(vanished: str, annotation: str, confirmed: bool) -> None:
    assert confirmed_stopped(vanished, {names.CONFIRM_STOPPED_ANNOTATION: annotation}) is confirmed


def test_a_claim_whose_holder_is_gone_waits_for_the_end_of_its_last_grant() -> None:
    absences = Absences(70)
    assert not absences.certain("a", absent=True, now=0)
    assert not absences.certain("a", absent=True, now=69)
    assert not absences.certain("b", absent=True, now=70)
    assert absences.certain("a", absent=True, now=70)
    assert not absences.certain("a", absent=False, now=71)
    assert not absences.certain("a", absent=True, now=72)


def test_a_pod_that_lost_its_owner_is_still_its_bots() -> None:
    raw = raw_pod({"running": {}})
    del raw["metadata"]["ownerReferences"]
    assert SeenPod.of(raw).owner_uid is None
    raw["metadata"]["labels"][names.BOT_UID_LABEL] = UID
    assert SeenPod.of(raw).owner_uid == UID


# --- what is news ---


def test_figures_are_no_news_and_safe_mode_is_an_alarm() -> None:
    before = word()
    assert news(before) == news(word(sequence=8, unprotected_seconds=1.0))
    assert news(before) != news(word(applied_revision=2))
    assert alarm(before) == alarm(word(applied_revision=2))
    assert alarm(before) != alarm(word(causes=("Spec",)))
    # After an operator's absence all bots lose and get grants: none of them is an alarm, and each is news.
    ungranted = word(causes=("AwaitingGrant",))
    assert alarm(before) == alarm(ungranted)
    assert news(before) != news(ungranted)
    assert alarm(ungranted) != alarm(word(causes=("AwaitingGrant", "Spec")))


def test_a_tradingbot_made_again_under_its_name_remembers_nothing_and_is_counted_once() -> None:
    fleet = Fleet()
    former = fleet.of(seen_bot())
    former.phase, former.last_grant = Phase.TRADING, 1.0
    new = fleet.of(seen_bot(metadata={"uid": "new"}))
    # The gauge of phases still counts the former one: it must count down from there.
    assert (new.uid, new.phase, new.last_grant) == ("new", Phase.TRADING, None)
    assert [memory.uid for memory in fleet] == ["new"]


# --- the work queue ---


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(Random(1), clock)


async def test_what_may_wait_is_taken_when_nothing_else_waits_and_never_goes_back_behind() -> None:
    work = queue(Clock())
    for key in ("new", "newer", "newest"):
        work.add(key, may_wait=True)
    work.add("begun")
    work.add("begun", may_wait=True)
    work.add("newer")
    work.add("newest", urgent=True)
    assert len(work) == 4
    taken = [await work.take() for _ in range(4)]
    assert taken == ["newest", "begun", "newer", "new"]


async def test_a_key_waits_once_however_often_it_is_added_and_an_urgent_one_goes_first() -> None:
    work = queue(Clock())
    for key in ("a", "b", "a", "c"):
        work.add(key)
    work.add("c", urgent=True)
    assert len(work) == 3
    assert [await work.take() for _ in range(3)] == ["c", "a", "b"]


async def test_urgent_keys_keep_their_order_so_that_none_waits_for_all_that_came_after_it() -> None:
    work = queue(Clock())
    for key in ("first", "second", "first"):
        work.add(key, urgent=True)
    work.add("second", may_wait=True)
    work.add("third")
    assert [await work.take() for _ in range(3)] == ["first", "second", "third"]


async def test_a_key_is_never_with_two_workers_and_comes_again_after_its_step() -> None:
    work = queue(Clock())
    work.add("a")
    assert await work.take() == "a"
    work.add("a")
    assert len(work) == 0
    work.done("a")
    assert await work.take() == "a"


async def test_of_several_delays_the_earliest_counts() -> None:
    clock = Clock()
    work = queue(clock)
    work.add_after("a", 20)
    work.add_after("a", 5)
    work.add_after("a", 60)
    clock.now += 5
    assert await work.take() == "a"
    work.done("a")
    clock.now += 100
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await work.take()


async def test_failures_back_off_up_to_a_ceiling_and_a_success_forgets_them() -> None:
    clock = Clock()
    work = queue(clock)
    delays = []
    for _ in range(12):
        work.add("a")
        await work.take()
        work.done("a", failed=True)
        begun = clock.now
        while len(work) == 0:
            clock.now += 0.05
            work._promote()
        delays.append(clock.now - begun)
    assert delays[0] <= 0.3
    assert LONGEST_RETRY_SECONDS / 2 <= delays[-1] <= LONGEST_RETRY_SECONDS + 0.1
    await work.take()
    work.done("a")
    work.add("a")
    await work.take()
    work.done("a", failed=True)
    clock.now += 0.3
    assert await work.take() == "a"


def test_kopfs_retries_never_end_and_stay_short() -> None:
    delays = list(itertools.islice(iter(EndlessBackoff(Random(1))), 100))
    assert max(delays) <= 15.0
    assert len(delays) == 100


# --- the inventory ---


def test_older_news_are_ignored_and_a_deletion_of_a_former_object_too() -> None:
    bots: Inventory[SeenBot] = Inventory()
    assert bots.see(seen_bot(metadata={"resourceVersion": "10"}))
    assert not bots.see(seen_bot(metadata={"resourceVersion": "9"}))
    assert bots.see(seen_bot(metadata={"resourceVersion": "11", "uid": "new"}))
    assert not bots.gone(KEY, UID)
    assert bots.gone(KEY, "new")


@pytest.mark.parametrize(
    ("pod", "terminated"),
    [
        pytest.param(seen_pod({"running": {}}), False, id="running"),
        pytest.param(seen_pod({"terminated": {"exitCode": 1}}), False, id="restarts"),
        pytest.param(seen_pod({"terminated": {"exitCode": 0}}, deleting=True), True, id="ended-while-deleted"),
        pytest.param(seen_pod({"running": {}}, deleting=True), False, id="still-ending"),
        pytest.param(seen_pod(None, deleting=True), False, id="nothing-known"),
        pytest.param(seen_pod({"terminated": {"exitCode": 0}}, phase="Failed"), True, id="failed"),
        pytest.param(
            seen_pod({"running": {}}, phase="Failed", disruption="DeletionByPodGC"), False, id="lost-node-by-pod-gc"
        ),
        pytest.param(
            seen_pod({"terminated": {"exitCode": 0}}, phase="Failed", disruption="DeletionByPodGC"),
            True,
            id="ended-before-pod-gc",
        ),
        pytest.param(
            seen_pod(None, phase="Failed", disruption="DeletionByPodGC", node=None),
            True,
            id="pod-gc-of-a-pod-on-no-node",
        ),
        pytest.param(
            seen_pod({"running": {}}, phase="Failed", disruption="EvictionByEvictionAPI"), True, id="evicted-by-kubelet"
        ),
    ],
)
def test_a_process_counts_as_ended_only_when_the_kubelet_said_so(pod: SeenPod, terminated: bool) -> None:
    assert pod.terminated is terminated


def test_a_pod_without_a_node_never_ran() -> None:
    assert SeenPod.of(raw_pod(None, node=None)).never_ran
    assert not SeenPod.of(raw_pod(None)).never_ran


# --- the Lease ---


def test_the_count_of_a_lease_goes_on_above_all_former_ones_whatever_became_of_it() -> None:
    made, day = datetime(2026, 11, 22, tzinfo=UTC), timedelta(days=1)
    first = epoch = next_epoch(0, made)
    for _ in range(1000):
        epoch = next_epoch(epoch, made)
    assert epoch == first + 1000
    # It was deleted, or an old backup brought it back, or it is another one.
    assert next_epoch(0, made + day) > epoch
    assert next_epoch(first, made + day) > epoch
    # The clock of the next one is behind.
    assert next_epoch(epoch, made - day) == epoch + 1
    assert next_epoch(0, datetime(2087, 1, 1, tzinfo=UTC)) < 2**31


# --- settings ---


def test_settings_come_from_flags_and_mistakes_are_named(tmp_path: Path) -> None:
    make_authority(tmp_path)
    arguments = ["--ca-dir", str(tmp_path), "--claims-namespace", "tb", "--log-level", "INFO"]
    settings = load([*arguments, "--namespace", "b", "--namespace", "a"], {"KUBECONFIG": "/somewhere"})
    assert (settings.namespaces, settings.kubeconfig, settings.log_level) == (("a", "b"), "/somewhere", "info")
    with pytest.raises(SettingsError, match=r"--ca-dir: expected a file ca\.crt"):
        load(["--ca-dir", str(tmp_path / "none"), "--claims-namespace", "tb"], {})
    with pytest.raises(SettingsError, match="--claims-namespace"):
        load(["--ca-dir", str(tmp_path)], {})


def test_operators_of_the_same_namespaces_share_a_lease_and_others_do_not() -> None:
    assert lease_name(()) != lease_name(("a",)) != lease_name(("a", "b"))
    assert lease_name(("a", "b")) == lease_name(("a", "b"))


OURS = {names.BOT_LABEL: "btcusdt", names.BOT_UID_LABEL: "former", names.MANAGED_BY_LABEL: names.FIELD_MANAGER}


@pytest.mark.parametrize(
    ("metadata", "ours"),
    [
        pytest.param({"labels": OURS}, True, id="its-owner-was-taken-off"),
        pytest.param(
            {"labels": OURS, "ownerReferences": [{"kind": "TradingBot", "uid": "former"}]}, True, id="not-collected-yet"
        ),
        pytest.param({"labels": OURS, "ownerReferences": [{"kind": "ReplicaSet"}]}, False, id="of-another-controller"),
        pytest.param({"labels": {**OURS, names.BOT_LABEL: "ethusdt"}}, False, id="a-copy-under-another-name"),
        pytest.param({"labels": {names.BOT_LABEL: "btcusdt"}}, False, id="with-one-of-our-labels"),
        pytest.param({}, False, id="without-labels"),
    ],
)
def test_only_a_pod_that_was_made_for_a_tradingbot_of_its_name_may_be_ended(
    metadata: dict[str, Any], ours: bool
) -> None:
    assert made_for_bot({"metadata": {"name": "btcusdt", **metadata}}) is ours
