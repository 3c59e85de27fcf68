"""Promises of what the operator keeps of bots and claims between its steps: it outlives what nobody thought of."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support.operator_objects import NOW, RUNNING, UID, raw_pod, seen_bot, seen_pod, word
from tradingbot_api.bot_http import BotStatus, Grant
from tradingbot_api.v1alpha1 import OrdersStatus, SafeModeStatus
from tradingbot_operator.bot_controller import BotController
from tradingbot_operator.bot_link import BotLink, Opening, Peer, client_session, share
from tradingbot_operator.bot_talk import BotTalk
from tradingbot_operator.certainty import GRANT_OVER_SECONDS, Certainty
from tradingbot_operator.certificates import CertificateAuthority, KeyPair
from tradingbot_operator.claims import Claim, Claimant, Claims, Standing
from tradingbot_operator.cluster import ApiError, Cluster, ExistsError
from tradingbot_operator.coverage import Coverage
from tradingbot_operator.equality import Equality
from tradingbot_operator.fleet import Fleet, Ledger, Memory
from tradingbot_operator.handlers import Watcher
from tradingbot_operator.imposed import NOBODY
from tradingbot_operator.inventory import BotKey, Inventory, Manifest, SeenBot, SeenPod
from tradingbot_operator.leader import Leader
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.order_shares import OrderShares
from tradingbot_operator.settings import Settings
from tradingbot_operator.sharding import ALONE
from tradingbot_operator.shares import Shares
from tradingbot_operator.status import Finding

KEY = BotKey("trading", "btcusdt")


async def test_a_link_goes_on_after_a_failure_that_nobody_thought_of() -> None:
    session = client_session(lambda: None)
    await session.close()  # what is asked of it now is no error of a connection
    losses = asyncio.Semaphore(0)

    def heard(_: BotKey, __: BotStatus | None, after: BotStatus | None) -> None:
        assert after is None
        losses.release()

    link = BotLink(
        Peer(KEY, UID, "pod-1", "127.0.0.1"), session, ssl.create_default_context(), heard=heard, random=Random(1),
        metrics=Metrics(), epoch=lambda: 1, opening=Opening(),
    )  # fmt: skip
    async with asyncio.timeout(10):
        await losses.acquire()
        await losses.acquire()
    assert link.trouble.startswith("RuntimeError")
    link.close()


def test_what_a_bot_repeats_is_held_once_and_the_rest_is_as_it_told() -> None:
    said = SafeModeStatus(level="Normal", engaged=False, acknowledged=False)
    former = word(safe_mode=said, orders=OrdersStatus(active=1))
    latest = word(safe_mode=said.model_copy(), orders=OrdersStatus(active=2), sequence=8)
    told = latest.model_copy()
    share(former, latest)
    assert latest == told
    assert latest.safe_mode is former.safe_mode


class Leases:
    """An API server that has Leases alone."""

    def __init__(self) -> None:
        self.stored: dict[str, Manifest] = {}
        self.reads = 0

    async def get(self, _: str, __: str, name: str) -> Manifest | None:
        """One of them."""
        self.reads += 1
        return self.stored.get(name)

    async def create(self, _: str, manifest: Manifest, *, whole: bool) -> Manifest:
        """Another one."""
        name = manifest["metadata"]["name"]
        if name in self.stored:
            raise ExistsError(409, "AlreadyExists", name)
        self.stored[name] = manifest
        return manifest

    async def replace(self, _: str, manifest: Manifest) -> Manifest:
        """A change of one."""
        self.stored[manifest["metadata"]["name"]] = manifest
        return manifest

    async def claims_of(self, *_: Any) -> list[Manifest]:
        """All of them."""
        return list(self.stored.values())


async def _gone(claim: Claim) -> bool:
    return False


async def test_bots_that_do_not_answer_keep_others_from_being_called_for_a_moment_only() -> None:
    opening = Opening(at_once=2, seconds=0.05)
    open_now, most, silent = 0, 0, asyncio.Event()

    async def call(answers: bool) -> None:
        nonlocal open_now, most
        async with opening.turn():
            open_now += 1
            most = max(most, open_now)
            await (asyncio.sleep(0) if answers else silent.wait())
            open_now -= 1

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(call(True))
        await asyncio.sleep(0)
        assert most == 2
        dead = [group.create_task(call(False)) for _ in range(4)]
        await group.create_task(call(True))
        assert not any(task.done() for task in dead)
        silent.set()


async def test_a_first_claim_is_not_read_before_it_is_made_and_one_that_another_has_is_not_taken() -> None:
    leases = Leases()
    claims = Claims(cast(Cluster, leases), "trading")
    ours = Claimant(KEY, UID, "Paper", "1001", "BTCUSDT", "boot-1", 10)
    assert (await claims.take(ours, NOW, _gone, first=True)).standing is Standing.HELD
    assert leases.reads == 0
    theirs = replace(ours, key=BotKey("trading", "other"), uid="uid-other", boot_id="boot-2")
    refused = await claims.take(theirs, NOW, _gone, first=True)
    assert (refused.standing, refused.holder) == (Standing.FOREIGN, str(KEY))
    assert not claims.holds(theirs)
    # Of the same TradingBot, as after a hand-over, an older start than the claim names is not granted.
    assert (await claims.take(replace(ours, boot_id="boot-3"), NOW, _gone, first=True)).standing is Standing.RAISE


async def test_a_claim_that_is_taken_over_names_a_greater_incarnation_than_any_start_before() -> None:
    async def gone(_: Claim) -> bool:
        return True

    leases = Leases()
    claims = Claims(cast(Cluster, leases), "trading")
    former = Claimant(KEY, "uid-former", "Paper", "1001", "BTCUSDT", "boot-1", 10)
    await claims.take(former, NOW, _gone)
    for incarnation in (9, 10):
        ours = replace(former, uid=UID, boot_id="boot-2", incarnation=incarnation)
        verdict = await claims.take(ours, NOW, gone)
        assert (verdict.standing, verdict.incarnation, claims.holds(ours)) == (Standing.RAISE, 10, False)
    raised = replace(former, uid=UID, boot_id="boot-2", incarnation=11)
    assert (await claims.take(raised, NOW, gone)).standing is Standing.HELD
    assert (Claim.of(leases.stored[raised.lease_name]).holder_uid, claims.holds(raised)) == (UID, True)


async def test_a_claim_that_a_new_leader_recalls_is_looked_at_again() -> None:
    leases = Leases()
    former = Claims(cast(Cluster, leases), "trading")
    claimant = Claimant(KEY, UID, "Paper", "1001", "BTCUSDT", "boot-1", 10)
    assert (await former.take(claimant, NOW, _gone)).standing is Standing.HELD
    claims = Claims(cast(Cluster, leases), "trading")
    assert not await claims.recall("another", claimant.lease_name)
    assert await claims.recall(UID, claimant.lease_name)
    assert await claims.look() == set()
    leases.stored.clear()
    assert await claims.look() == {UID}
    assert not await claims.recall(UID, claimant.lease_name)


async def test_a_leader_that_begins_knows_all_claims_and_grants_none_to_another_start() -> None:
    leases = Leases()
    claimant = Claimant(KEY, UID, "Paper", "1001", "BTCUSDT", "boot-1", 10)
    await Claims(cast(Cluster, leases), "trading").take(claimant, NOW, _gone)
    claims = Claims(cast(Cluster, leases), "trading")
    await claims.begin()
    assert claims.holds(claimant)
    assert not claims.holds(replace(claimant, boot_id="boot-2"))
    assert not claims.holds(replace(claimant, incarnation=11))
    leases.stored.clear()
    assert await claims.look() == {UID}
    assert not claims.holds(claimant)


class Granted:
    """A line to a bot."""

    def __init__(self) -> None:
        self.boots: list[str] = []

    async def put_grant(self, grant: Grant) -> None:
        """Gives the right to add exposure."""
        self.boots.append(grant.boot_id)


async def test_a_pod_that_somebody_made_in_the_place_of_a_vanished_one_is_granted_once_that_ones_grant_is_over() -> (
    None
):
    now, unused = asyncio.get_running_loop().time(), cast(Any, None)
    leader = cast(Leader, SimpleNamespace(epoch=1, since=now - 1000))
    talk = BotTalk(
        cluster=unused, bots=unused, claims=unused, certainty=Certainty(unused, unused, leader), coverage=Coverage(),
        equality=Equality(), leader=leader, impositions=NOBODY, tls=unused, session=unused, heard=unused,
        enqueue=unused, now=lambda: NOW, random=Random(1), metrics=unused,
        shares=Shares((), 0, bots=Inventory(), pods=Inventory(), time=lambda: now),
        orders=OrderShares(lambda: now, lambda: NOW),
    )  # fmt: skip
    bot, link, again = seen_bot(), Granted(), list[float]()
    memory = Memory(
        UID, KEY, ledger=Ledger(None, None, None), claim=Finding.good(), confirmed=(1, "boot-1"), vanished_pod="pod-0",
        last_grant=now - 5, granted_boot="boot-0",
    )  # fmt: skip
    assert memory.ledger is not None
    memory.ledger.want_spec(bot)
    await talk._grant(bot, memory, word(), cast(BotLink, link), again)
    assert (link.boots, again) == ([], [pytest.approx(GRANT_OVER_SECONDS - 5, abs=1)])
    memory.last_grant = now - GRANT_OVER_SECONDS
    await talk._grant(bot, memory, word(), cast(BotLink, link), again)
    assert (link.boots, memory.vanished_pod) == (["boot-1"], None)


def test_a_pod_whose_name_another_has_is_gone_though_nobody_saw_it_go() -> None:
    pods, gone, unused = Inventory[SeenPod](), list[str](), cast(Any, None)
    controller = SimpleNamespace(pod_gone=lambda pod: gone.append(pod.uid))
    watcher = Watcher(
        bots=unused, pods=pods, controller=cast(BotController, controller), lane=unused, switches={}, switched=unused,
        enqueue=lambda *_: None, shard=ALONE,
    )  # fmt: skip
    for uid, version in (("pod-1", 20), ("pod-1", 21), ("pod-2", 22), ("pod-1", 20)):
        raw = raw_pod({"running": {}})
        raw["metadata"] |= {"uid": uid, "resourceVersion": str(version)}
        watcher.pod(raw)
    assert gone == ["pod-1"]


class Written:
    """An API server that takes what is made, unless that is refused, and shows nothing."""

    def __init__(self, refusal: ApiError | None = None) -> None:
        self.made: list[str] = []
        self.refusal = refusal

    async def list_all(self, *_: object, **__: object) -> list[Manifest]:
        """Nothing."""
        return []

    async def claims_of(self, *_: object) -> list[Manifest]:
        """None."""
        return []

    async def create(self, resource: str, manifest: Manifest, **_: object) -> Manifest:
        """Makes an object."""
        self.made.append(f"{resource} {manifest['metadata']['name']}")
        if self.refusal is not None:
            raise self.refusal
        return manifest


@pytest.mark.parametrize(
    ("pod", "made"),
    [
        pytest.param(seen_pod({"waiting": {"reason": "ContainerCreating"}}), True, id="it-waits-for-a-volume"),
        pytest.param(seen_pod({"terminated": {"exitCode": 255}}), True, id="its-node-began-anew"),
        pytest.param(seen_pod({"waiting": {"reason": "ImagePullBackOff"}}), False, id="it-waits-for-something-else"),
        pytest.param(seen_pod(None, node=None), False, id="no-node-has-it"),
        pytest.param(seen_pod({"waiting": {"reason": "ContainerCreating"}}, deleting=True), False, id="it-goes"),
        pytest.param(RUNNING, False, id="it-runs"),
    ],
)
@pytest.mark.parametrize("refusal", [None, ExistsError(409, "AlreadyExists", ""), ApiError(403, "Forbidden", "quota")])
async def test_a_certificate_that_somebody_removed_is_made_anew_for_a_pod_that_cannot_start_without_it(
    pod: SeenPod, made: bool, refusal: ApiError | None
) -> None:
    bots, pods, unused, cluster = Inventory[SeenBot](), Inventory[SeenPod](), cast(Any, None), Written(refusal)
    bots.see(seen_bot())
    pods.see(pod)
    settings = SimpleNamespace(namespaces=(), shard=ALONE, egress_groups=(), exchange_weight=0, identity="me")
    authority = SimpleNamespace(issue_bot=lambda *_: KeyPair(b"", b""), pem=b"")
    controller = BotController(
        cast(Settings, settings), cluster=cast(Cluster, cluster), bots=bots, pods=pods, fleet=Fleet(),
        claims=Claims(cast(Cluster, cluster), "tb"), authority=cast(CertificateAuthority, authority), tls=unused,
        session=unused, enqueue=lambda *_: None, has_turn=lambda _: True, leader=unused, impositions=NOBODY,
        now=lambda: NOW, random=Random(1), metrics=Metrics(), reservations=unused,
    )  # fmt: skip
    await controller.look_around()
    assert cluster.made == (["secrets btcusdt-tls-0a1b2c3d"] if made else [])
