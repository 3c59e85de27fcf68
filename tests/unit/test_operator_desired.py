"""Promises of the objects that a TradingBot should have."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509

from support.operator_objects import SPEC, UID, seen_bot, word
from support.operator_process import make_authority
from tradingbot_api import names
from tradingbot_operator import desired
from tradingbot_operator.certificates import CertificateAuthority
from tradingbot_operator.cluster import Cluster
from tradingbot_operator.desired import Identity, SpecError
from tradingbot_operator.fleet import Ledger, Memory
from tradingbot_operator.inventory import Inventory, SeenBot
from tradingbot_operator.settings import SettingsError

IDENTITY = Identity("trading", "btcusdt", UID)
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def pod(**spec: Any) -> dict[str, Any]:
    return desired.pod(IDENTITY, desired.parse_spec(seen_bot(**spec)), "tradingbot/bot:1", "IfNotPresent")


def test_the_pod_satisfies_pod_security_restricted_and_holds_no_kubernetes_credentials() -> None:
    spec = pod()["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Always"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "env" not in container
    assert "envFrom" not in container


def test_scrape_annotations_are_no_reason_to_replace_a_pod_and_ones_own_win() -> None:
    plain, scraped = (
        desired.pod(IDENTITY, desired.parse_spec(seen_bot(**spec)), "tradingbot/bot:1", "IfNotPresent", scraped=scraped)
        for spec, scraped in (({}, False), ({}, True))
    )
    added = dict(scraped["metadata"]["annotations"])
    assert added.pop(names.POD_TEMPLATE_ANNOTATION) == plain["metadata"]["annotations"][names.POD_TEMPLATE_ANNOTATION]
    assert added == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(names.PROBE_PORT),
        "prometheus.io/path": "/metrics",
    }
    spec = desired.parse_spec(seen_bot(pod={"annotations": {"prometheus.io/scrape": "false"}}))
    own = desired.pod(IDENTITY, spec, "tradingbot/bot:1", "IfNotPresent", scraped=True)
    assert own["metadata"]["annotations"]["prometheus.io/scrape"] == "false"


def test_the_pod_is_owned_by_uid_and_its_credentials_secret_is_optional() -> None:
    manifest = pod()
    (owner,) = manifest["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (UID, True)
    volumes = {item["name"]: item for item in manifest["spec"]["volumes"]}
    assert volumes["credentials"]["secret"]["optional"] is True
    assert volumes["tls"]["secret"]["secretName"] == names.tls_secret_name("btcusdt", UID)
    assert volumes["state"] == {"name": "state", "emptyDir": {}}


def test_strategies_of_ones_own_are_mounted_and_may_be_missing() -> None:
    strategy = {"name": "buy-the-dip", "interval": "1m", "configMapRef": {"name": "strategies"}}
    spec = pod(strategy=strategy)["spec"]
    (volume,) = [item for item in spec["volumes"] if item["name"] == "strategies"]
    (mount,) = [item for item in spec["containers"][0]["volumeMounts"] if item["name"] == "strategies"]
    assert volume["configMap"] == {"name": "strategies", "optional": True}
    assert mount == {"name": "strategies", "mountPath": names.STRATEGIES_DIR, "readOnly": True}
    assert all(item["name"] != "strategies" for item in pod()["spec"]["volumes"])


def test_the_pod_shows_the_bot_its_own_annotations() -> None:
    spec = pod()["spec"]
    (volume,) = [item for item in spec["volumes"] if item["name"] == "podinfo"]
    (mount,) = [item for item in spec["containers"][0]["volumeMounts"] if item["name"] == "podinfo"]
    (item,) = volume["downwardAPI"]["items"]
    assert item == {"path": names.ANNOTATIONS_FILE, "fieldRef": {"fieldPath": "metadata.annotations"}}
    assert mount == {"name": "podinfo", "mountPath": names.PODINFO_DIR, "readOnly": True}


def test_the_users_pod_settings_are_taken_and_cannot_hide_the_pod_from_the_operator() -> None:
    manifest = pod(
        pod={
            "image": "mine:2",
            "labels": {"team": "a", names.MANAGED_BY_LABEL: "me"},
            "annotations": {"note": "x"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "registry"}],
            "resources": {"limits": {"memory": "1Gi"}},
        }
    )
    spec = manifest["spec"]
    assert spec["containers"][0]["image"] == "mine:2"
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}
    assert manifest["metadata"]["labels"]["team"] == "a"
    assert manifest["metadata"]["labels"][names.MANAGED_BY_LABEL] == names.FIELD_MANAGER
    assert set(manifest["metadata"]["annotations"]) == {"note", names.POD_TEMPLATE_ANNOTATION}
    assert (spec["nodeSelector"], spec["priorityClassName"]) == ({"disk": "ssd"}, "high")
    assert (spec["tolerations"], spec["affinity"]) == ([{"operator": "Exists"}], {"nodeAffinity": {}})
    assert spec["imagePullSecrets"] == [{"name": "registry"}]


@pytest.mark.parametrize(
    "empty",
    [{"priorityClassName": ""}, {"affinity": {}}, {"labels": {}}, {"tolerations": []}, {"nodeSelector": {}}],
    ids=lambda empty: next(iter(empty)),
)
def test_an_empty_setting_asks_for_the_same_pod_as_an_absent_one(empty: dict[str, Any]) -> None:
    assert pod(pod=empty) == pod()


def test_fields_of_a_newer_crd_are_left_out_and_told_so_that_its_upgrade_stops_no_bot() -> None:
    newer = seen_bot(fresh="Default", risk={**SPEC["risk"], "fresh": {"a": 1}})
    assert desired.parse_spec(newer) == desired.parse_spec(seen_bot())
    assert desired.unknown_fields(newer).endswith(": spec.fresh, spec.risk.fresh.")
    assert desired.unknown_fields(seen_bot()) == ""
    with pytest.raises(SpecError, match=r"spec\.capital") as refused:
        desired.parse_spec(seen_bot(fresh="Default", capital="much"))
    assert "fresh" not in str(refused.value)


@pytest.mark.parametrize(("policy", "owned"), [("Retain", False), ("Delete", True)])
def test_a_retained_volume_has_no_owner_and_says_whose_books_it_holds(policy: str, owned: bool) -> None:
    spec = desired.parse_spec(seen_bot(storage={"size": "2Gi", "reclaimPolicy": policy}))
    claim = desired.volume_claim(IDENTITY, spec)
    assert claim is not None
    assert claim["spec"]["resources"]["requests"] == {"storage": "2Gi"}
    assert bool(claim["metadata"].get("ownerReferences")) is owned
    assert claim["metadata"]["labels"][names.BOT_UID_LABEL] == UID


def test_a_configuration_survives_the_config_map_and_its_money_stays_plain_decimals() -> None:
    settings = desired.settings_of(desired.parse_spec(seen_bot(capital="1000.10")))
    config = desired.bot_config(IDENTITY, settings, 4)
    manifest = desired.config_map(IDENTITY, config)
    assert desired.decode(manifest) == config
    assert json.loads(manifest["data"][names.CONFIG_KEY])["settings"]["capital"] == "1000.1"


def test_a_field_that_equals_its_default_never_reaches_a_bot_that_may_not_know_it() -> None:
    defaults = {
        "entry": {"maxSlippageRatio": "0.001", "maxSpreadRatio": "0.0010", "maxDataAgeSeconds": 5, "maxPerMinute": 10},
        "protection": {**SPEC["protection"], "deadlineSeconds": 10},
        "risk": {**SPEC["risk"], "riskPerTradeRatio": "0.01", "maxDrawdownRatio": "0.15", "cooldownSeconds": 300},
        "circuitBreaker": {"failureThreshold": 5, "recoveryTimeoutSeconds": 300},
    }
    settings = desired.settings_of(desired.parse_spec(seen_bot(**defaults)))
    text = desired.encode(desired.bot_config(IDENTITY, settings, 1))
    assert json.loads(text) == {
        "revision": 1,
        "bot": {"namespace": "trading", "name": "btcusdt", "uid": UID},
        "settings": SPEC,
    }
    defaults["risk"]["cooldownSeconds"] = 0
    settings = desired.settings_of(desired.parse_spec(seen_bot(**defaults)))
    sent = desired.bot_config(IDENTITY, settings, 1).sparse()["settings"]
    assert sent["risk"]["cooldownSeconds"] == 0
    assert "entry" not in sent


def test_the_operators_part_of_the_spec_does_not_shape_the_configuration() -> None:
    first = desired.settings_of(desired.parse_spec(seen_bot()))
    assert (
        desired.settings_of(desired.parse_spec(seen_bot(deletionPolicy="ClosePosition", pod={"image": "x"}))) == first
    )


def test_the_revision_grows_exactly_when_the_content_differs() -> None:
    settings = desired.settings_of(desired.parse_spec(seen_bot()))
    safe = desired.settings_of(desired.parse_spec(seen_bot(safeMode=True)))
    ledger = Ledger(None, None, None)
    assert [ledger.want(item) for item in (settings, settings, safe, safe, settings)] == [1, 1, 2, 2, 3]
    restarted = Ledger(desired.bot_config(IDENTITY, settings, 3), "uid", "1")
    assert restarted.want(settings) == 3
    assert [restarted.want(settings, ("drawdown",)), restarted.want(settings)] == [4, 5]
    restarted = Ledger(desired.bot_config(IDENTITY, settings, 3), "uid", "1")
    # Handed over by a former operator that ended before it wrote the ConfigMap.
    restarted.heard(4)
    assert restarted.want(settings) == 5


def test_safe_mode_is_carried_with_the_former_settings_while_the_spec_cannot_be_read() -> None:
    former = desired.settings_of(desired.parse_spec(seen_bot()))
    stored = desired.bot_config(IDENTITY, former, 3)
    ledger = Ledger(stored, "uid", "1")
    broken: dict[str, Any] = {"capital": "a lot"}
    assert ledger.want_spec(seen_bot(safeMode=True, **broken)) == 4
    assert ledger.settings == former.model_copy(update={"safe_mode": True})
    with pytest.raises(SpecError):
        ledger.want_spec(seen_bot(**broken))
    with pytest.raises(SpecError):
        Ledger(None, None, None).want_spec(seen_bot(safeMode=True, **broken))
    assert ledger.want_spec(seen_bot()) == 5


async def test_a_step_that_began_before_a_change_of_the_spec_does_not_count_the_former_one_as_newer() -> None:
    before, after = seen_bot(), seen_bot(safeMode=True, metadata={"resourceVersion": "11"})
    bots: Inventory[SeenBot] = Inventory()
    bots.see(before)
    memory = Memory(UID, before.key, ledger=Ledger(None, None, None))
    nobody = cast(Cluster, None)  # the ledger is known: nothing is read
    await memory.wanted_config(before, bots, nobody)
    bots.see(after)
    await memory.wanted_config(after, bots, nobody)
    ledger = await memory.wanted_config(before, bots, nobody)
    assert ledger.revision == 2
    assert ledger.config(after).settings.safe_mode is True


def test_equal_revisions_are_no_proof_until_the_same_start_of_the_bot_answered_to_have_the_content() -> None:
    bot = seen_bot(safeMode=True)
    settings = desired.settings_of(desired.parse_spec(bot))
    # The former operator told the bot revision 6 and ended before it wrote the ConfigMap.
    ledger = Ledger(desired.bot_config(IDENTITY, desired.settings_of(desired.parse_spec(seen_bot())), 5), "uid", "1")
    assert ledger.want(settings) == 6
    memory = Memory(UID, bot.key, ledger=ledger)
    told = word(applied_revision=6)
    assert memory.has_current_config(told)
    assert not memory.has_confirmed(told)
    # The bot refuses other content at its own revision: the operator counts above it.
    ledger.outrun(6)
    assert ledger.want(settings) == 7
    memory.confirmed = (7, "boot-1")
    assert memory.has_confirmed(word(applied_revision=7))
    assert not memory.has_confirmed(word(applied_revision=7, boot_id="boot-2"))


class Reads:
    """Answers each read with one object."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer = answer

    async def get(self, *_: str) -> dict[str, Any]:
        return self._answer


async def test_a_ledger_that_is_read_anew_counts_above_what_was_handed_over_and_takes_no_former_answer() -> None:
    bots: Inventory[SeenBot] = Inventory()
    former, released = seen_bot(safeMode=True), seen_bot(metadata={"resourceVersion": "11"})
    stored = desired.config_map(
        IDENTITY, desired.bot_config(IDENTITY, desired.settings_of(desired.parse_spec(former)), 5)
    )
    stored["metadata"] |= {"uid": "config", "resourceVersion": "1"}
    cluster = cast(Cluster, Reads(stored))
    memory = Memory(UID, former.key)
    bots.see(former)
    assert (await memory.wanted_config(former, bots, cluster)).revision == 5
    # A release is handed over, and answered, before the ConfigMap turns out to be another than was written.
    bots.see(released)
    assert (await memory.wanted_config(released, bots, cluster)).revision == 6
    memory.handed, memory.confirmed = (6, "boot-1", 0.0), (6, "boot-1")
    memory.drop_ledger()
    again = seen_bot(safeMode=True, capital="900", metadata={"resourceVersion": "12"})
    bots.see(again)
    ledger = await memory.wanted_config(again, bots, cluster)
    assert ledger.revision > 6
    assert not memory.has_confirmed(word(applied_revision=6))
    # Where nothing was handed over since, nothing is counted.
    unchanged = Memory(UID, former.key)
    await unchanged.wanted_config(former, Inventory(), cluster)
    unchanged.drop_ledger()
    assert (await unchanged.wanted_config(former, Inventory(), cluster)).revision == 5


def test_a_spec_that_cannot_be_read_is_refused_with_the_fields_path() -> None:
    with pytest.raises(SpecError, match=r"spec\.capital: .*expected a decimal number"):
        desired.parse_spec(seen_bot(capital=5))


# --- certificates ---


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    make_authority(tmp_path)
    return CertificateAuthority.load(tmp_path)


def test_a_bots_certificate_names_its_uid_and_serves_only(authority: CertificateAuthority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.issue_bot(UID, datetime.now(UTC)).certificate)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pem))
    name = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert name.get_values_for_type(x509.DNSName) == [names.bot_server_name(UID)]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [item.dotted_string for item in usage] == ["1.3.6.1.5.5.7.3.1"]


def test_the_secret_of_the_certificate_is_immutable(authority: CertificateAuthority) -> None:
    pair = authority.issue_bot(UID, datetime.now(UTC))
    manifest = desired.tls_secret(IDENTITY, pair, authority.pem)
    assert manifest["immutable"] is True
    assert set(manifest["data"]) == {"tls.crt", "tls.key", "ca.crt"}


def test_the_operator_trusts_its_own_authority_only_and_shows_its_certificate(authority: CertificateAuthority) -> None:
    context = authority.client_context(datetime.now(UTC))
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("broken", ["ca.crt", "ca.key"])
def test_a_broken_authority_is_named(tmp_path: Path, broken: str) -> None:
    make_authority(tmp_path)
    (tmp_path / broken).write_text("nonsense")
    with pytest.raises(SettingsError, match="--ca-dir"):
        CertificateAuthority.load(tmp_path)


def test_a_key_of_another_authority_is_refused(tmp_path: Path) -> None:
    make_authority(tmp_path / "a")
    make_authority(tmp_path / "b")
    (tmp_path / "a/ca.key").write_bytes((tmp_path / "b/ca.key").read_bytes())
    with pytest.raises(SettingsError, match=r"ca\.key is not the key of ca\.crt"):
        CertificateAuthority.load(tmp_path / "a")
