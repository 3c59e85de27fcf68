"""Promises of an upgrade, with the former release's CRD, operator and bots as processes, on a cluster of its own."""

from __future__ import annotations

import asyncio
import io
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_kubernetes.local import LocalCluster

from campaigns.life_cycle import ORDERS_EVERY, all_orders, eager_spec, entries, volume_for
from paper_exchange.testing import PaperExchange, TestAccount, spawn_paper_exchange
from support.kube import BOTS, Json, Kube
from support.kubelet_processes import KubeletProcesses, node_name
from support.operator_process import OperatorProcess, make_authority
from support.waiting import until
from tradingbot_api import names

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
FORMER = "ab218f4db49db09a61d40a3f8b0e7ff59fe57700"
"""The release whose bots this operator must work with."""
FORMER_IMAGE = "tradingbot/bot:former"
NAMESPACE = "upgrade"


@dataclass(frozen=True)
class Release:
    """The sources of a release."""

    folder: Path

    @property
    def python_path(self) -> str:
        """Makes a process run this release."""
        return ":".join(str(self.folder / member / "src") for member in ("crds", "operator", "bot"))

    @property
    def crd(self) -> Path:
        """Its CRD."""
        return self.folder / "crds/tradingbots.yaml"


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The former release, from the history of this clone."""
    archive = subprocess.run(
        ("git", "-C", str(ROOT), "archive", FORMER, "crds", "operator", "bot"), capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"this clone has no history that reaches the former release {FORMER[:7]}")
    folder = tmp_path_factory.mktemp("former")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return Release(folder)


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[LocalCluster]:
    """Its CRD is replaced during the test, so nobody else may use it."""
    cluster = LocalCluster("test-upgrade")
    cluster.up(node=False)
    yield cluster
    cluster.down()


@dataclass
class Stage:
    """What both versions of the operator work on."""

    cluster: LocalCluster
    kube: Kube
    kubelet: KubeletProcesses
    exchange: PaperExchange
    account: TestAccount
    authority: Path

    async def bot(self) -> Json:
        """The TradingBot."""
        return await self.kube.get(BOTS.format(NAMESPACE) + "/btcusdt") or {}

    async def pod(self) -> Json:
        """Its pod."""
        return await self.kube.call("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/btcusdt")

    async def is_(self, kind: str, status: str, seconds: float = 45.0) -> Json:
        """Waits for a condition."""
        found: Json = {}

        async def probe() -> bool:
            nonlocal found
            conditions = (await self.bot()).get("status", {}).get("conditions", [])
            found = next((item for item in conditions if item["type"] == kind), {})
            return found.get("status") == status

        try:
            await until(f"{kind}={status}", probe, seconds)
        except AssertionError as error:
            logs = [line for container in self.kubelet.containers.values() for line in container.log[-5:]]
            told = f"{self.kubelet.trouble[-3:]}; {''.join(logs)}; {(await self.pod()).get('status')}"
            raise AssertionError(f"{error}; it is {found}; {told}") from error
        return found

    async def apply_crd(self, release: Release) -> None:
        """As the documents say."""
        command = ("apply", "--server-side", "--force-conflicts", "-f", str(release.crd))
        await asyncio.to_thread(self.cluster.kubectl, *command)
        await asyncio.to_thread(
            self.cluster.kubectl, "wait", "--for=condition=Established", f"crd/{names.PLURAL}.{names.GROUP}"
        )

    async def extend_the_crd(self, name: str, interval: str) -> None:
        """A field of the spec with a default, and a value of another field, as a later release may add them."""
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tradingbots.tradingbot.dev"
        crd = await self.kube.call("GET", path)
        (version,) = crd["spec"]["versions"]
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        spec[name] = {"type": "string", "default": "Plain"}
        spec["strategy"]["properties"]["interval"]["enum"].append(interval)
        await self.kube.call("PUT", path, crd)

    async def operator(self, *more: str, python_path: str | None = None) -> OperatorProcess:
        """Starts one."""
        return await OperatorProcess.start(
            self.cluster.kubeconfig(), self.authority, NAMESPACE, "--identity", "test", *more, python_path=python_path
        )


@pytest.fixture
async def stage(own_cluster: LocalCluster, former: Release, tmp_path: Path) -> AsyncIterator[Stage]:
    """A namespace with keys, a kubelet that runs real bots, and a paper exchange."""
    kube = await Kube.of(own_cluster.kubeconfig())
    own_cluster.kubectl("create", "namespace", NAMESPACE)
    await kube.call("POST", "/api/v1/persistentvolumes", volume_for(NAMESPACE))
    kubelet = KubeletProcesses(kube, node_name("upgrade"), tmp_path / "pods")
    kubelet.python_paths[FORMER_IMAGE] = former.python_path
    make_authority(tmp_path / "authority")
    async with spawn_paper_exchange(tmp_path / "exchange", symbols="BTCUSDT", seed=7) as exchange:
        account = await exchange.create_account(USDT="10000")
        keys = {"apiKey": account.api_key, "apiSecret": account.secret_key}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "binance"}, "stringData": keys}
        await kube.call("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", secret)
        await kubelet.start()
        try:
            yield Stage(own_cluster, kube, kubelet, exchange, account, tmp_path / "authority")
        finally:
            await kubelet.stop()
            await kube.close()


async def test_an_upgrade_restarts_no_bot_loses_no_order_and_the_former_bots_trade_on(
    stage: Stage, former: Release
) -> None:
    await stage.apply_crd(former)
    operator = await stage.operator("--bot-image", FORMER_IMAGE, python_path=former.python_path)
    spec = eager_spec(
        stage.exchange,
        stage.kubelet,
        deletionPolicy="ClosePosition",
        storage={"size": "1Gi", "reclaimPolicy": "Retain"},
    )
    body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "btcusdt"}, "spec": spec}
    await stage.kube.call("POST", BOTS.format(NAMESPACE), body)
    await stage.is_("TradingAllowed", "True")
    pod, before = await stage.pod(), (await stage.bot())["status"]

    # As the documents say: the CRD first, then the operator; bots are left alone.
    await stage.apply_crd(Release(ROOT))
    assert await operator.stop() == 0
    operator = await stage.operator("--bot-image", "tradingbot/bot:this")
    try:
        outdated = await stage.is_("UpToDate", "False")
        assert outdated["reason"] == "PodOutdated"
        await stage.is_("Ready", "True")
        traded = len(entries(await all_orders(stage.exchange, stage.account)))

        async def trades_on() -> bool:
            return len(entries(await all_orders(stage.exchange, stage.account))) > traded

        await until("an entry under the new operator's grant", trades_on, 45, every=ORDERS_EVERY)
        after = (await stage.bot())["status"]
        assert after["incarnation"] == before["incarnation"]
        assert after["accountUID"] == before["accountUID"]
        now = await stage.pod()
        assert now["metadata"]["uid"] == pod["metadata"]["uid"]
        assert now["status"]["containerStatuses"][0]["restartCount"] == 0

        # A new operator and a former bot: configuration, safe mode and its release.
        path = BOTS.format(NAMESPACE) + "/btcusdt"
        await stage.kube.merge(path, {"spec": {"risk": {"maxPositionValue": "400"}}})
        await stage.kube.merge(path, {"spec": {"safeMode": True}})
        await stage.is_("SafeModeAcknowledged", "True")
        await stage.is_("ConfigApplied", "True")
        await stage.kube.merge(path, {"spec": {"safeMode": None}})
        await stage.is_("TradingAllowed", "True")

        # The bot is updated when a human says so, on the same volume, and knows every order of before.
        await stage.kube.merge(path, {"spec": {"updateStrategy": "Immediate"}})
        await stage.is_("UpToDate", "True")
        await stage.is_("Ready", "True")
        assert (await stage.pod())["metadata"]["uid"] != pod["metadata"]["uid"]
        incarnations = [incarnation for _, incarnation, _ in entries(await all_orders(stage.exchange, stage.account))]
        assert incarnations == sorted(incarnations)
        assert (await stage.bot())["status"]["trades"]["total"] >= before["trades"]["total"]

        # The CRD of a release to come: its defaults are in every spec before its operator is there.
        await stage.extend_the_crd("fresh", "7m")

        async def has_the_default() -> bool:
            return "fresh" in (await stage.bot())["spec"]

        await until("the default of the new field", has_the_default)
        await stage.kube.merge(path, {"spec": {"risk": {"maxPositionValue": "300"}}})

        async def told() -> bool:
            return "spec.fresh" in (await stage.is_("Accepted", "True")).get("message", "")

        await until("the field to be named", told)
        await stage.is_("ConfigApplied", "True")
        await stage.is_("Ready", "True")

        # Safe mode, set while no operator ran, beside a value that this one cannot read: carried by its first look.
        assert await operator.stop() == 0
        await stage.kube.merge(path, {"spec": {"strategy": {"interval": "7m"}, "safeMode": True}})
        operator = await stage.operator("--bot-image", "tradingbot/bot:this")
        assert (await stage.is_("Accepted", "False"))["reason"] == "InvalidSpec"

        async def carried() -> bool:
            causes = (await stage.bot())["status"].get("safeMode", {}).get("causes", [])
            return "spec" in [cause["id"] for cause in causes]

        await until("safe mode of a spec that cannot be read", carried, 15)
        await stage.is_("SafeModeAcknowledged", "True")
        await stage.kube.merge(path, {"spec": {"strategy": {"interval": "1s"}, "safeMode": None}})
        await stage.is_("TradingAllowed", "True")

        await stage.kube.call("DELETE", path)

        async def let_go() -> bool:
            return await stage.bot() == {}

        await until("the TradingBot to go", let_go, 60)
        account = await stage.exchange.account(stage.account.uid)
        assert account["openOrders"] == []
        reasons = [
            item["reason"] for item in await stage.kube.items(f"/api/v1/namespaces/{NAMESPACE}/events")
            if item["involvedObject"]["kind"] == names.KIND
        ]  # fmt: skip
        assert "DeletionIncomplete" not in reasons
    finally:
        await operator.stop()
    assert operator.complaints() == []
