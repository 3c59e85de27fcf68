"""Promises of several operators in one cluster: each TradingBot has exactly one, and none speaks for another's."""

from __future__ import annotations

import asyncio
import copy
import ssl
from datetime import timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.operator_objects import NOW, RUNNING, UID, raw_pod, seen_bot, word
from support.operator_process import make_authority
from tradingbot_api import names
from tradingbot_api.bot_http import (
    EPOCH_PAST,
    BotConfig,
    BotIdentity,
    ErrorReply,
    ExchangeWait,
    ImposedCause,
    WeightUse,
)
from tradingbot_api.conditions import ConditionType, Reason
from tradingbot_api.kill_switch import KillSwitchStatus
from tradingbot_api.sets import Template
from tradingbot_operator import desired, set_desired
from tradingbot_operator.bot_link import BotRefusedError, Word, client_session
from tradingbot_operator.bot_objects import BotObjects
from tradingbot_operator.bot_talk import BotTalk
from tradingbot_operator.certainty import GRANT_OVER_SECONDS, HANDOVER_SECONDS, Certainty
from tradingbot_operator.cluster import Cluster, ConflictError, UnreachableError
from tradingbot_operator.egress import address_of
from tradingbot_operator.fleet import Fleet, Memory
from tradingbot_operator.handlers import Watcher
from tradingbot_operator.imposed import NOBODY
from tradingbot_operator.inventory import BotKey, Inventory, Manifest, SeenBot, SeenPod
from tradingbot_operator.kill_switch import KillSwitches, SeenKillSwitch, SeenSwitch
from tradingbot_operator.leader import OUTRUN_SECONDS, Leader, LeaseLostError, lease_name
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.safe_mode import SafeModeLane
from tradingbot_operator.settings import SettingsError, load
from tradingbot_operator.sharding import LONGEST_NAME, Account, OtherShards, Shard
from tradingbot_operator.shares import Shares
from tradingbot_operator.start_pace import StartPace
from tradingbot_operator.status import encode
from tradingbot_operator.wait_lane import WaitLane

MAIN, A, B = Shard(others=frozenset({"a", "b"})), Shard("a"), Shard("b")
LABELS = st.sampled_from(["", "a", "b", "c", "A", "typo"])


def bot(name: str = "btcusdt", shard: str = "", *, version: int = 10, labels: dict[str, str] | None = None,
        status: dict[str, Any] | None = None, **spec: Any) -> SeenBot:  # fmt: skip
    """A TradingBot of a shard."""
    label = {names.SHARD_LABEL: shard} if shard else {}
    metadata = {
        "name": name, "uid": f"uid-{name}", "resourceVersion": str(version), "labels": {**(labels or {}), **label},
    }  # fmt: skip
    return seen_bot(metadata=metadata, status=status, **spec)


def pod_of(name: str = "btcusdt", shard: str = "") -> SeenPod:
    """A pod that runs, as it was made for a TradingBot of a shard."""
    raw = raw_pod({"running": {}}, ready=True)
    raw["metadata"] |= {
        "name": name,
        "ownerReferences": [{"kind": names.KIND, "uid": f"uid-{name}", "controller": True}],
        "labels": {
            names.BOT_LABEL: name, names.BOT_UID_LABEL: f"uid-{name}", names.MANAGED_BY_LABEL: names.FIELD_MANAGER,
            **({names.SHARD_LABEL: shard} if shard else {}),
        },
    }  # fmt: skip
    return SeenPod.of(raw)


# --- who serves ---


@given(LABELS, st.sets(st.sampled_from(["a", "b", "c"])))
def test_every_bot_has_exactly_one_operator_whatever_its_label_says(label: str, shards: set[str]) -> None:
    operators = [Shard(others=frozenset(shards)), *(Shard(name) for name in shards)]
    assert sum(operator.serves(bot(shard=label)) for operator in operators) == 1
    assert sum(operator.serves(pod_of(shard=label)) for operator in operators) == 1


def test_a_bot_of_a_shard_that_nobody_knows_is_served_by_the_main_operator() -> None:
    assert [shard.serves(bot(shard="typo")) for shard in (MAIN, A, B)] == [True, False, False]
    assert [shard.serves(bot()) for shard in (MAIN, A, B)] == [True, False, False]
    assert [shard.serves(bot(shard="a")) for shard in (MAIN, A, B)] == [False, True, False]


def test_an_operator_that_was_told_of_no_shards_serves_everything() -> None:
    assert Shard().alone
    assert all(Shard().serves(bot(shard=label)) for label in ("", "a", "typo"))
    assert not MAIN.alone
    assert not A.alone


def test_shards_are_flags_and_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_authority(tmp_path)
    arguments = ["--ca-dir", str(tmp_path), "--claims-namespace", "tb"]
    assert load(arguments, {}).shard == Shard()
    assert load([*arguments, "--shard", "a"], {}).shard == A
    assert load([*arguments, "--other-shard", "a", "--other-shard", "b"], {}).shard == MAIN
    with pytest.raises(SettingsError, match="--other-shard: expected none beside --shard"):
        load([*arguments, "--shard", "a", "--other-shard", "b"], {})
    for name in ("", "A", "-a", "a b", "a" * (LONGEST_NAME + 1)):
        with pytest.raises(SystemExit):
            load([*arguments, f"--shard={name}"], {})
        assert "argument --shard: expected at most 20 of a-z" in capsys.readouterr().err


def test_each_shard_has_a_lease_of_its_own() -> None:
    found = {lease_name(namespaces, shard) for namespaces in ((), ("a",), ("shard-a",)) for shard in ("", "a", "b")}
    assert len(found) == 9
    assert lease_name(()) == names.FIELD_MANAGER


# --- a pod whose TradingBot is gone ---


class Gone:
    """An API server that has a pod, and no TradingBot for it."""

    def __init__(self, pod: SeenPod) -> None:
        self.pod = pod
        self.deleted: list[str] = []

    async def get(self, resource: str, *_: str) -> Manifest | None:
        if resource != "pods":
            return None
        raw = raw_pod({"running": {}})
        raw["metadata"] |= {
            "name": self.pod.key.name,
            "ownerReferences": [],
            "labels": {
                names.BOT_LABEL: self.pod.key.name,
                names.BOT_UID_LABEL: "u",
                names.MANAGED_BY_LABEL: names.FIELD_MANAGER,
            },
        }  # fmt: skip
        return raw

    async def delete(self, *arguments: str) -> None:
        self.deleted.append(arguments[-1])


@pytest.mark.parametrize(("label", "ends"), [("", MAIN), ("typo", MAIN), ("a", A), ("b", B)])
async def test_a_pod_whose_tradingbot_is_gone_is_ended_by_exactly_one_operator(label: str, ends: Shard) -> None:
    pod = pod_of(shard=label)
    for shard in (MAIN, A, B):
        cluster, unused = Gone(pod), cast(Any, None)
        pods: Inventory[SeenPod] = Inventory()
        pods.see(pod)
        objects = BotObjects(
            cast(Any, SimpleNamespace(shard=shard)), cluster=cast(Cluster, cluster), bots=Inventory(), pods=pods,
            authority=unused, certainty=unused, reporter=unused, impositions=NOBODY, shares=unused, pace=unused,
            now=lambda: NOW, metrics=unused, reservations=unused,
        )  # fmt: skip
        await objects.end_orphan(pod.key)
        assert cluster.deleted == (["pod-1"] if shard is ends else [])


def test_a_pod_is_labelled_as_its_tradingbot_and_a_label_that_moves_makes_no_other_pod() -> None:
    identity, spec = desired.Identity("trading", "btcusdt", UID), desired.parse_spec(seen_bot())
    plain, of_a = (desired.pod(identity, spec, "bot:1", "Always", shard=shard) for shard in ("", "a"))
    assert names.SHARD_LABEL not in plain["metadata"]["labels"]
    assert of_a["metadata"]["labels"][names.SHARD_LABEL] == "a"
    assert plain["metadata"]["annotations"] == of_a["metadata"]["annotations"], "the digest of the template"
    labelled = desired.parse_spec(seen_bot(pod={"labels": {names.SHARD_LABEL: "b"}}))
    assert names.SHARD_LABEL not in desired.pod(identity, labelled, "bot:1", "Always")["metadata"]["labels"]


# --- a label that moves ---


class Lease:
    """An API server that has one Lease.

    `lost`: an answer does not come, and the write is tried twice; `silent`: none comes; `down`: nothing is written.
    """

    def __init__(self) -> None:
        self.stored: Manifest | None = None
        self.version = 0
        self.lost = self.silent = self.down = False

    async def get(self, *_: str) -> Manifest | None:
        return copy.deepcopy(self.stored)

    async def create(self, _: str, manifest: Manifest) -> Manifest:
        return await self.replace(_, manifest)

    async def replace(self, _: str, manifest: Manifest) -> Manifest:
        sent = manifest["metadata"].get("resourceVersion")
        if self.down:
            raise UnreachableError(0, "Unreachable", "no answer")
        if self.stored is not None and sent != self.stored["metadata"]["resourceVersion"]:
            raise ConflictError(409, "Conflict", "it changed")
        self.version += 1
        metadata = {**manifest["metadata"], "resourceVersion": str(self.version)}
        self.stored = {**manifest, "metadata": metadata, "spec": dict(manifest["spec"])}
        if self.lost:
            self.lost = False
            raise ConflictError(409, "Conflict", "it was tried twice")
        if self.silent:
            raise UnreachableError(0, "Unreachable", "no answer in time")
        return copy.deepcopy(self.stored)


def standby(lease: Lease, clock: list[float], identity: str = "me") -> Leader:
    """Its wall clock and its own go by `clock`, in seconds."""
    return Leader(
        cast(Cluster, lease), "tb", "lease", identity, now=lambda: NOW + timedelta(seconds=clock[0]),
        clock=lambda: clock[0],
    )  # fmt: skip


async def led(lease: Lease, clock: list[float]) -> Leader:
    """A standby that leads."""
    leader = standby(lease, clock)
    await leader.acquire()
    return leader


async def test_a_leader_raises_its_epoch_above_that_of_an_operator_that_came_later_and_not_without_end() -> None:
    clock = [0.0]
    lease = Lease()
    leader = await led(lease, clock)
    clock[0] = 100.0
    later = await led(Lease(), clock)
    first, other = leader.epoch, later.epoch
    assert first < other
    await leader._renew()
    assert leader.epoch == first, "nobody asked"
    clock[0] = 101.0
    for _ in range(3):
        leader.outrun()
        await leader._renew()
    raised = leader.epoch
    assert raised > other
    assert lease.stored is not None
    assert lease.stored["spec"]["leaseTransitions"] == raised
    clock[0] += OUTRUN_SECONDS
    await leader._renew()
    assert leader.epoch > raised, "what was asked for meanwhile"


async def test_a_raise_whose_answer_was_lost_is_still_ours_and_another_holders_is_not() -> None:
    clock, lease = [0.0], Lease()
    leader = await led(lease, clock)
    clock[0], lease.lost = 50.0, True
    leader.outrun()
    await leader._renew()
    assert lease.stored is not None
    assert leader.epoch == lease.stored["spec"]["leaseTransitions"]
    lease.stored["spec"]["leaseTransitions"] += 1
    lease.stored["metadata"]["resourceVersion"] = "another"
    with pytest.raises(LeaseLostError):
        await leader._renew()


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_raise_that_got_no_answer_is_made_with_the_next_renewal_and_costs_no_lease(arrives: bool) -> None:
    clock, lease = [0.0], Lease()
    leader = await led(lease, clock)
    first = leader.epoch
    clock[0], lease.down, lease.silent = 50.0, not arrives, arrives
    leader.outrun()
    with pytest.raises(UnreachableError):
        await leader._renew()
    clock[0], lease.down, lease.silent = 51.0, False, False
    await leader._renew()
    assert lease.stored is not None
    assert leader.epoch == lease.stored["spec"]["leaseTransitions"] > first, "a bot that came waits for it"


async def test_a_renewal_that_met_a_change_by_others_is_written_before_it_counts() -> None:
    clock, lease = [0.0], Lease()
    leader, other = await led(lease, clock), standby(lease, clock, "other")
    assert lease.stored is not None
    lease.version += 1
    lease.stored["metadata"] |= {"labels": {"team": "ops"}, "resourceVersion": str(lease.version)}
    assert not await other._try()
    clock[0] = 5.5
    await leader._renew()  # counts until 11.5
    clock[0] = 11.0
    assert not await other._try(), "two would lead"


class Latest:
    """An API server that has one TradingBot."""

    def __init__(self, shard: str) -> None:
        self.raw = {
            "metadata": {
                "namespace": "trading", "name": "btcusdt", "uid": UID, "resourceVersion": "11", "generation": 3,
                "creationTimestamp": "2026-11-22T11:00:00Z", "labels": {names.SHARD_LABEL: shard},
            }
        }  # fmt: skip

    async def get(self, *_: str) -> Manifest:
        return self.raw


@pytest.mark.parametrize("stays", [True, False])
async def test_only_the_operator_whose_bot_it_is_by_the_api_servers_word_outruns_the_other(stays: bool) -> None:
    raised: list[int] = []
    steps: list[BotKey] = []
    unused = cast(Any, None)
    bots: Inventory[SeenBot] = Inventory()
    ours = seen_bot(metadata={"labels": {names.SHARD_LABEL: "a"}})
    bots.see(ours)
    talk = BotTalk(
        cluster=cast(Cluster, Latest("a" if stays else "b")), bots=bots, claims=unused, certainty=unused,
        coverage=unused, equality=unused, leader=cast(Leader, SimpleNamespace(outrun=lambda: raised.append(1))),
        impositions=NOBODY, tls=cast(ssl.SSLContext, None), session=unused, heard=unused,
        enqueue=lambda key, _: steps.append(key), now=lambda: NOW, random=Random(1), metrics=unused, shares=unused,
        orders=unused, shard=A,
    )  # fmt: skip
    await talk._outrun(ours, BotRefusedError(409, ErrorReply(code="GrantMismatch", message="")))
    assert (raised, steps) == ([], [])
    await talk._outrun(ours, BotRefusedError(409, ErrorReply(code=EPOCH_PAST, message="")))
    assert (len(raised), steps) == ((1, []) if stays else (0, [ours.key]))
    known = bots.get(ours.key)
    assert known is not None
    assert A.serves(known) is stays


async def test_nothing_is_said_to_a_bot_that_came_from_another_shard_below_an_epoch_of_its_own() -> None:
    session = client_session(lambda: None)
    await session.close()
    unused = cast(Any, None)
    leader = SimpleNamespace(epoch=5)
    talk = BotTalk(
        cluster=unused, bots=unused, claims=unused, certainty=unused, coverage=unused, equality=unused,
        leader=cast(Leader, leader), impositions=NOBODY, tls=ssl.create_default_context(), session=session,
        heard=lambda *_: None, enqueue=unused, now=lambda: NOW, random=Random(1), metrics=Metrics(), shares=unused,
        orders=unused, shard=A,
    )  # fmt: skip
    memory = Memory(UID, RUNNING.key, above=5)
    talk.tend_link(seen_bot(), memory, RUNNING)
    assert memory.link is None, "its former operator may have the same"
    leader.epoch = 6
    talk.tend_link(seen_bot(), memory, RUNNING)
    assert memory.link is not None
    memory.link.close()


class NoClaims:
    async def any_of(self, _: str) -> bool:
        return True


async def test_a_vanished_pod_of_a_bot_that_came_from_another_shard_is_waited_for_until_that_one_cannot_grant() -> None:
    now = asyncio.get_running_loop().time()
    leader = cast(Leader, SimpleNamespace(since=now - 1000))
    memory = Memory(UID, BotKey("trading", "btcusdt"), vanished_pod="pod-1", since=now)
    for shard, expected in ((Shard(), 0.0), (A, GRANT_OVER_SECONDS + HANDOVER_SECONDS)):
        certainty = Certainty(cast(Any, None), cast(Any, NoClaims()), leader, shard)
        assert await certainty.granted_for(seen_bot(), memory) == pytest.approx(expected, abs=1)


# --- safe mode ---


async def test_safe_mode_is_carried_by_the_operators_of_the_bots_own_shard() -> None:
    stepped: list[BotKey] = []
    bots: Inventory[SeenBot] = Inventory()
    fleet = Fleet()
    unused = cast(Any, None)
    lane = SafeModeLane(
        unused, bots=bots, pods=Inventory(), fleet=fleet,
        leader=cast(Any, SimpleNamespace(valid=lambda: False, lapsed=lambda: True)),
        impositions=NOBODY, tls=unused, session=unused, metrics=unused, enqueue=stepped.append, shard=A,
    )  # fmt: skip
    for item in (bot("mine", "a", safeMode=True), bot("other", "b", safeMode=True), bot("main", safeMode=True)):
        bots.see(item)
        lane.notice(item)
        lane.notice_imposed([item])
    await asyncio.gather(*lane._tasks.values())
    assert {memory.key.name for memory in fleet} == {"mine"}
    assert {key.name for key in stepped} == {"mine"}


# --- kill switches ---

CAUSE = ImposedCause(id="kill-switch/incident", source="KillSwitch", reason="KillSwitch", level="NoNewEntries")


def held(*, acknowledged: bool = True, cause: bool = True, reason: str = Reason.KILL_SWITCH) -> dict[str, Any]:
    """The status of a bot that a kill switch holds."""
    conditions = [
        {"type": ConditionType.SAFE_MODE_ENGAGED, "status": "True", "reason": reason},
        {
            "type": ConditionType.SAFE_MODE_ACKNOWLEDGED, "status": str(acknowledged), "reason": reason,
        },
    ]  # fmt: skip
    told = {"id": CAUSE.id, "source": CAUSE.source, "reason": CAUSE.reason, "level": CAUSE.level}
    safe = {"level": "NoNewEntries", "engaged": True, "acknowledged": acknowledged, "causes": [told] if cause else []}
    return {"conditions": conditions, **({} if reason == Reason.PROCESS_GONE else {"safeMode": safe})}


class SwitchStore:
    """An API server that has one kill switch and ConfigMaps."""

    def __init__(self) -> None:
        self.raw: dict[str, Any] = {
            "metadata": {
                "namespace": "trading", "name": "incident", "uid": "u", "resourceVersion": "5", "generation": 1,
                "creationTimestamp": "2026-11-22T11:00:00Z",
            },
            "spec": {"selector": {}, "reason": "exchange incident"},
        }  # fmt: skip
        self.config_maps: list[Manifest] = []
        self.writes: list[str] = []

    @property
    def seen(self) -> SeenSwitch:
        return SeenKillSwitch.of(self.raw)

    def change(self, **fields: Any) -> Manifest:
        metadata = {**self.raw["metadata"], "resourceVersion": str(int(self.raw["metadata"]["resourceVersion"]) + 1)}
        self.raw = {**self.raw, "metadata": metadata, **fields}
        return self.raw

    async def get(self, *_: str) -> Manifest:
        return self.raw

    async def list_all(self, resource: str, _: tuple[str, ...]) -> list[Manifest]:
        assert resource == "configmaps"
        return self.config_maps

    async def set_finalizer(self, _: SeenSwitch, *, present: bool) -> SeenSwitch:
        self.writes.append(f"finalizer {present}")
        self.change()
        self.raw["metadata"]["finalizers"] = [names.RELEASE_FINALIZER] if present else []
        return self.seen

    async def apply_status(self, _: SeenSwitch, status: KillSwitchStatus) -> SeenSwitch:
        self.writes.append("status")
        self.change(status=encode(status))
        return self.seen

    async def create_event(self, *_: object, **__: object) -> None: ...


class Switches:
    """A kill switch as one operator looks after it; none of the bots is served by it unless a test says so."""

    def __init__(self, shard: Shard, *bots: SeenBot, pods: tuple[SeenPod, ...] = ()) -> None:
        self.store, self.enqueued = SwitchStore(), list[BotKey]()
        self.kinds: Inventory[SeenSwitch] = Inventory()
        inventory, known = Inventory[SeenBot](), Inventory[SeenPod]()
        for item in bots:
            inventory.see(item)
        for pod in pods:
            known.see(pod)
        self.switches = KillSwitches(
            cast(Cluster, self.store), {SeenKillSwitch: self.kinds}, bots=inventory, fleet=Fleet(),
            enqueue=lambda key, _: self.enqueued.append(key), now=lambda: NOW, identity="me", random=Random(1),
            pods=known, shard=shard,
        )  # fmt: skip

    async def look(self) -> dict[str, Any]:
        """One look; the status that stands then."""
        self.kinds.see(self.store.seen)
        await self.switches._look(self.store.seen)
        self.kinds.see(self.store.seen)
        return dict(self.store.raw.get("status", {}))

    def release(self) -> None:
        self.store.change(spec={**self.store.raw["spec"], "release": True})
        self.store.raw["metadata"]["generation"] = 2
        self.switches.begin()


async def test_a_kill_switch_counts_the_bots_of_all_shards_and_only_the_main_operator_writes_it() -> None:
    bots = (
        bot("a1", "a", status=held()),
        bot("a2", "a", status=held(acknowledged=False)),
        bot("b1", "b", status=held()),
    )
    main = Switches(MAIN, *bots)
    status = await main.look()
    assert (status["bots"], status["acknowledged"], status["unacknowledged"]) == (3, 2, 1)
    assert [item["name"] for item in status["pending"]] == ["a2"]
    assert main.store.writes == ["finalizer True", "status"]
    for shard in (A, B):
        of_shard = Switches(shard, *bots)
        assert await of_shard.look() == {}
        assert of_shard.store.writes == []


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="never told"),
        pytest.param(held(cause=False, reason=Reason.SPEC), id="engaged before for another reason"),
        pytest.param(held(reason=Reason.PROCESS_GONE), id="a process that began since"),
    ],
)
async def test_bots_of_a_shard_that_is_dead_are_told_as_unacknowledged(status: dict[str, Any]) -> None:
    told = await Switches(MAIN, bot("a1", "a", status=status), pods=(pod_of("a1", "a"),)).look()
    assert (told["bots"], told["engaged"], told["unacknowledged"]) == (1, 0, 1)


async def test_a_bot_of_another_shard_without_a_process_has_acknowledged_while_no_pod_is_there() -> None:
    told = await Switches(MAIN, bot("a1", "a", status=held(reason=Reason.PROCESS_GONE))).look()
    assert (told["bots"], told["unacknowledged"]) == (1, 0)


async def test_a_released_kill_switch_stays_until_no_bot_of_any_shard_has_its_cause() -> None:
    other = bot("a1", "a", status=held())
    main = Switches(MAIN, other)
    await main.look()
    main.release()
    assert (await main.look())["phase"] == "Releasing"
    freed = bot("a1", "a", version=20, status={"conditions": held()["conditions"]})
    main.switches._bots.see(freed)
    identity = BotIdentity(namespace="trading", name="a1", uid=freed.uid)
    settings = desired.settings_of(desired.parse_spec(freed))
    config = BotConfig(revision=3, bot=identity, settings=settings, imposed=[CAUSE])
    main.store.config_maps = [desired.config_map(desired.Identity.of(freed), config)]
    main.store.writes.clear()
    await main.look()
    assert "finalizer False" not in main.store.writes, "the status does not tell, the configuration does"
    main.store.config_maps = [desired.config_map(desired.Identity.of(freed), config.model_copy(update={"imposed": []}))]
    await main.look()
    assert main.store.writes[-1] == "finalizer False"


async def test_each_shard_confirms_itself_that_a_kill_switch_has_ended() -> None:
    of_a = Switches(A, bot("a1", "a", status=held()))
    of_a.release()
    await of_a.look()
    assert [key.name for key in of_a.enqueued] == ["a1"]
    assert of_a.store.writes == []
    assert list(of_a.switches.imposes(bot("a1", "a"), {CAUSE.id: CAUSE})) == []


async def test_a_kill_switch_that_is_read_before_its_watch_event_comes_is_carried_at_once_too() -> None:
    scene, carried, unused = Switches(MAIN, bot()), list[BotKey](), cast(Any, None)
    watcher = Watcher(
        bots=scene.switches._bots, pods=Inventory(), controller=unused, switches={SeenKillSwitch: scene.kinds},
        lane=cast(Any, SimpleNamespace(notice_imposed=lambda bots: carried.extend(seen.key for seen in bots))),
        switched=scene.switches.hurry, enqueue=unused, shard=MAIN,
    )  # fmt: skip
    store = scene.store
    store.change(spec={"selector": {"matchLabels": {"team": "other"}}, "reason": "drill"})
    watcher.switch(SeenKillSwitch, store.raw)
    assert carried == []
    store.change(spec={"selector": {}, "reason": "drill"})
    await scene.switches.standing(bot(), CAUSE.id)
    watcher.switch(SeenKillSwitch, store.raw)
    assert carried == [bot().key]


# --- one account, one address ---


def test_an_account_that_is_split_over_shards_is_known_until_it_is_not() -> None:
    changed: list[Account] = []
    others = OtherShards(A, changed.append)
    bots: Inventory[SeenBot] = Inventory()
    bots.followers.append(others.follow)
    mine = bot("mine", "a", status={"accountUID": "1001"})
    bots.see(mine)
    account = ("Paper http://paper-exchange.trading:8080", "1001")
    assert (others.on(account), changed) == ([], [])
    bots.see(bot("new", "b"))
    assert changed == [], "its account is not known yet"
    bots.see(bot("new", "b", version=11, status={"accountUID": "1001"}))
    bots.see(bot("next", status={"accountUID": "1001"}))
    assert (others.on(account), changed) == ([BotKey("trading", "new"), BotKey("trading", "next")], [account])
    bots.see(bot("new", "a", version=12, status={"accountUID": "1001"}))
    bots.gone(BotKey("trading", "next"), "uid-next")
    assert (others.on(account), changed) == ([], [account, account])


def using(wanted: int) -> Any:
    return word(weight=WeightUse(limit=6_000, used=wanted, wanted=wanted, address_used=0))


@given(st.integers(1, 30), st.integers(1, 30))
def test_what_two_shards_allot_to_the_bots_of_one_address_fits_together(first: int, second: int) -> None:
    bots, pods = Inventory[SeenBot](), Inventory[SeenPod]()
    for number in range(first):
        bots.see(bot(f"a{number}", "a"))
    for number in range(second):
        bots.see(bot(f"b{number}", "b"))
    granted, known = 0, set()
    for shard in (A, B):
        shares = Shares((), 6_000, bots=bots, pods=pods, time=lambda: 0.0, shard=shard)
        own = [item for item in bots if shard.serves(item)]
        for item in own:
            share = shares.grant(item, using(3_000))
            assert share is not None
            granted += share.weight
            known.add(share.address_bots)
        assert shares.part(address_of(own[0], None, ())) == pytest.approx(len(own) / (first + second))
    assert granted <= 4_800
    assert max(known) == first + second


def test_two_shards_start_bots_of_one_address_no_faster_together_than_one_operator() -> None:
    address = address_of(bot(), None, ())
    started = 0
    for part in (0.25, 0.75):
        pace = StartPace(6_000)
        waiting = [BotKey("trading", f"{part}-{number}") for number in range(100)]
        for second in range(60):
            for key in list(waiting):
                if pace.wait(key, address, holding=False, needed=0, now=float(second), part=part) == 0:
                    waiting.remove(key)
                    started += 1
    alone, waiting = 0, [BotKey("trading", str(number)) for number in range(100)]
    pace = StartPace(6_000)
    for second in range(60):
        for key in list(waiting):
            if pace.wait(key, address, holding=False, needed=0, now=float(second)) == 0:
                waiting.remove(key)
                alone += 1
    assert alone - 2 <= started <= alone


@pytest.mark.parametrize("shared", [False, True])
def test_the_first_bots_of_an_address_have_a_part_of_it_though_all_addresses_were_looked_at_just_before(
    shared: bool,
) -> None:
    bots = Inventory[SeenBot]()
    shares = Shares((), 6_000, bots=bots, pods=Inventory(), time=lambda: 0.0, shard=A)
    bots.see(bot("known", "a"))
    elsewhere = {**bot().spec["exchange"], "baseURL": "http://another:8080"}
    if shared:
        bots.see(bot("other", "b", exchange=elsewhere))
    assert shares.part(shares.address(bot("known", "a"))) == 1
    pace = StartPace(6_000)
    for name in [f"new{number}" for number in range(100)]:
        new = bot(name, "a", exchange=elsewhere)
        bots.see(new)
        address = shares.address(new)
        pace.wait(new.key, address, holding=False, needed=0, now=0.0, part=shares.part(address))
    assert 0 < pace.waiting()[address] < 100


class Line:
    """What was sent to a bot."""

    def __init__(self) -> None:
        self.waits: list[ExchangeWait] = []

    def fresh(self) -> Word:
        return Word(word(), 0.0)

    async def put_wait(self, wait: ExchangeWait) -> None:
        self.waits.append(wait)


async def test_a_ban_that_another_shards_bot_was_told_stops_this_ones_bots_of_that_address_alone() -> None:
    bots, fleet, line = Inventory[SeenBot](), Fleet(), Line()
    mine = bot("mine", "a")
    bots.see(mine)
    fleet.of(mine).link = cast(Any, line)
    lane = WaitLane(
        lambda seen: address_of(seen, None, ()), 6_000, bots=bots, fleet=fleet,
        leader=cast(Leader, SimpleNamespace(epoch=1)), now=lambda: NOW,
    )  # fmt: skip
    until = NOW + timedelta(seconds=60)
    elsewhere = {**mine.spec["exchange"], "baseURL": "http://another:8080"}
    for other in (
        bot("gone", "b", status={"api": {"waitUntilTime": (NOW - timedelta(seconds=1)).isoformat()}}),
        bot("far", "b", status={"api": {"waitUntilTime": until.isoformat()}}, exchange=elsewhere),
        bot("calm", "b", status={"api": {"calls": 1}}),
    ):
        bots.see(other)
        lane.saw(other)
    assert not lane._tasks
    banned = bot("banned", "b", status={"api": {"waitUntilTime": until.isoformat()}})
    bots.see(banned)
    lane.saw(banned)
    await asyncio.gather(*lane._tasks.values())
    assert [wait.until_time for wait in line.waits] == [until]
    lane.saw(banned)
    assert not lane._tasks, "told once"


# --- sets ---


def test_the_bots_of_a_set_are_of_its_shard_and_its_template_cannot_say_otherwise() -> None:
    spec = {key: value for key, value in seen_bot().spec.items() if key != "symbol"}
    template = Template.model_validate({"spec": spec, "metadata": {"labels": {names.SHARD_LABEL: "b", "team": "spot"}}})
    made = {}
    for shard in ("", "a"):
        owner = set_desired.Owner("trading", "majors", "set-uid", shard)
        wanted = set_desired.wanted(owner, template, "BTCUSDT", {})
        assert isinstance(wanted, set_desired.Wanted)
        made[shard] = set_desired.manifest(owner, wanted)["metadata"]
    assert made["a"]["labels"] == {"team": "spot", names.SET_LABEL: "majors", names.SHARD_LABEL: "a"}
    assert made[""]["labels"] == {"team": "spot", names.SET_LABEL: "majors"}
    assert made["a"]["annotations"] == made[""]["annotations"], "a shard is no other template"
