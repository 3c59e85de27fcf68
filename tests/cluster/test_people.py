"""Who may do what with a TradingBot: the chart's roles and its admission policy, on a real API server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from local_kubernetes.local import LocalCluster

from support import chart
from support.kube import BOTS, Json, Kube, KubeError
from support.operator_objects import SPEC
from support.waiting import until
from tradingbot_api import names

pytestmark = pytest.mark.cluster

RBAC = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "ClusterRole": f"{RBAC}/clusterroles",
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
SWITCHES = f"/apis/{names.API_VERSION}/namespaces/{{}}/{names.KILL_SWITCH.plural}"
WHY = {"reason": "a drill"}
ON_CALL = "tradingbot-oncall"
# Rights add up: who is on call and an editor may release.
EDITORS = {"tradingbot-edit", "edit", "admin", "both"}
READERS = {"tradingbot-view", ON_CALL, "view", *EDITORS}
SAFE: Json = {"spec": {"safeMode": True}}
RELEASED: Json = {"spec": {"safeMode": False}}
ABSENT: Json = {"spec": {"safeMode": None}}
CLEAR: Json = {"metadata": {"annotations": {names.CLEAR_ANNOTATION: "drawdown"}}}
CONFIRM: Json = {"metadata": {"annotations": {names.CONFIRM_STOPPED_ANNOTATION: "uid"}}}


@dataclass
class Office:
    """A namespace with a TradingBot and with people, each bound to one role."""

    admin: Kube
    people: dict[str, Kube]
    namespace: str

    @property
    def bot(self) -> str:
        """Its path."""
        return f"{BOTS.format(self.namespace)}/btcusdt"

    async def tries(self, who: str, method: str, path: str, body: Any = None, kind: str = "application/json") -> str:
        """`yes`, or what the API server said; nothing is changed."""
        try:
            await self.people[who].call(method, f"{path}?dryRun=All&fieldManager=test", body, kind)
        except KubeError as error:
            if error.status == 403:
                return str(error)
            raise
        return "yes"

    async def may(self, who: str, patch: Json, subresource: str = "") -> bool:
        """Whether the merge patch is let in."""
        return await self.tries(who, "PATCH", self.bot + subresource, patch, MERGE) == "yes"


@pytest.fixture
async def office(served_cluster: LocalCluster, api_namespace: str) -> AsyncIterator[Office]:
    """The chart's own objects, renamed, and one binding for each of them."""
    kubeconfig = served_cluster.kubeconfig()
    admin = await Kube.of(kubeconfig)
    suffix = f"-{uuid.uuid4().hex[:8]}"
    rendered = chart.render("--set", f"watchNamespaces={{{api_namespace}}}")
    made = [chart.of_its_own(o, suffix, api_namespace) for o in rendered if o["kind"] in PLURALS]
    roles = {o["metadata"]["name"].removesuffix(suffix): ("ClusterRole", o["metadata"]["name"]) for o in made}
    roles = {name: role for name, role in roles.items() if name != "tradingbot-safe-mode"}
    roles |= {name: ("ClusterRole", name) for name in ("view", "edit", "admin")}
    operator = chart.one(rendered, "Role", f"{chart.RELEASE}-bots")
    roles["operator"] = ("Role", operator["metadata"]["name"])
    people: dict[str, Kube] = {"nobody": await Kube.of(kubeconfig, f"nobody{suffix}")}
    try:
        for document in made:
            await admin.call("POST", PLURALS[document["kind"]], document)
        await admin.call("POST", f"{RBAC}/namespaces/{api_namespace}/roles", operator)
        people["both"] = await Kube.of(kubeconfig, f"both{suffix}")
        for name, (kind, role) in roles.items():
            users = [f"{name}{suffix}", *([f"both{suffix}"] if name in {ON_CALL, "tradingbot-edit"} else [])]
            binding = {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
                "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user} for user in users],
            }
            await admin.call("POST", f"{RBAC}/namespaces/{api_namespace}/rolebindings", binding)
            people[name] = await Kube.of(kubeconfig, users[0])
        for name, spec in (("btcusdt", SPEC), ("with-pod", {**SPEC, "pod": {"image": "x"}})):
            bot = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name}, "spec": spec}
            await admin.call("POST", BOTS.format(api_namespace), bot)
        switch = {"apiVersion": names.API_VERSION, "kind": "KillSwitch", "metadata": {"name": "all"}, "spec": WHY}
        await admin.call("POST", SWITCHES.format(api_namespace), switch)
        office = Office(admin, people, api_namespace)

        async def in_force() -> bool:
            asked = await office.tries("tradingbot-oncall", "PATCH", office.bot, {"spec": {"capital": "2000"}}, MERGE)
            aggregated = await office.tries("admin", "PATCH", office.bot, {"spec": {"capital": "2000"}}, MERGE)
            return "ValidatingAdmissionPolicy" in asked and aggregated == "yes"

        await until("roles and policy to be in force", in_force, 30)
        yield office
    finally:
        for document in made:
            await admin.call("DELETE", f"{PLURALS[document['kind']]}/{document['metadata']['name']}")
        for person in people.values():
            await person.close()
        await admin.close()


async def test_each_role_may_do_what_its_name_says_and_no_more(office: Office) -> None:
    bots = BOTS.format(office.namespace)
    new = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "new"}, "spec": SPEC}
    ended = {"metadata": {"finalizers": ["example.com/mine"]}}
    operator = {"operator"}
    switches, one = SWITCHES.format(office.namespace), f"{SWITCHES.format(office.namespace)}/all"
    another = {"apiVersion": names.API_VERSION, "kind": "KillSwitch", "metadata": {"name": "other"}, "spec": WHY}
    # what; method; path; body; content type; who may (all others may not)
    table: list[tuple[str, str, str, Any, str, set[str]]] = [
        ("get", "GET", office.bot, None, MERGE, READERS | operator),
        ("list", "GET", bots, None, MERGE, READERS | operator),
        ("read the status", "GET", f"{office.bot}/status", None, MERGE, READERS),
        ("create", "POST", bots, new, "application/json", EDITORS),
        ("create by apply", "PATCH", f"{bots}/new", new, APPLY, EDITORS),
        ("delete", "DELETE", office.bot, None, MERGE, EDITORS),
        ("delete all", "DELETE", bots, None, MERGE, EDITORS),
        ("set safe mode", "PATCH", office.bot, SAFE, MERGE, EDITORS | {ON_CALL}),
        ("write safe mode false", "PATCH", office.bot, RELEASED, MERGE, EDITORS),
        ("change the capital", "PATCH", office.bot, {"spec": {"capital": "2000"}}, MERGE, EDITORS),
        ("change a nested field", "PATCH", office.bot, {"spec": {"risk": {"maxDailyLoss": "9"}}}, MERGE, EDITORS),
        ("add a field", "PATCH", office.bot, {"spec": {"pod": {"image": "x"}}}, MERGE, EDITORS),
        ("remove a field", "PATCH", f"{bots}/with-pod", {"spec": {"pod": None}}, MERGE, EDITORS),
        ("safe mode and more", "PATCH", office.bot, {"spec": {"safeMode": True, "capital": "2000"}}, MERGE, EDITORS),
        ("clear a cause", "PATCH", office.bot, CLEAR, MERGE, EDITORS | operator),
        ("say that a process stopped", "PATCH", office.bot, CONFIRM, MERGE, EDITORS | operator),
        ("safe mode and clear", "PATCH", office.bot, {**SAFE, **CLEAR}, MERGE, EDITORS),
        ("label", "PATCH", office.bot, {"metadata": {"labels": {"a": "b"}}}, MERGE, EDITORS | operator),
        ("finalizers", "PATCH", office.bot, ended, MERGE, EDITORS | operator),
        ("read kill switches", "GET", switches, None, MERGE, READERS | operator),
        ("set a kill switch", "POST", switches, another, "application/json", EDITORS | {ON_CALL}),
        ("release a kill switch", "PATCH", one, {"spec": {"release": True}}, MERGE, EDITORS | operator),
        ("delete a kill switch", "DELETE", one, None, MERGE, EDITORS),
        ("write the status", "PATCH", f"{office.bot}/status", {"status": {"phase": "Fine"}}, MERGE, operator),
    ]
    wrong = [
        f"{who} may{'' if said == 'yes' else ' not'} {what}: {said}"
        for what, method, path, body, kind, allowed in table
        for who in office.people
        if ((said := await office.tries(who, method, path, body, kind)) == "yes") != (who in allowed)
    ]
    assert wrong == []


async def test_on_call_sets_safe_mode_and_only_editors_release_it(office: Office) -> None:
    await office.people[ON_CALL].merge(office.bot, SAFE)
    assert await office.may(ON_CALL, SAFE), "setting it again changes nothing and is no error"
    for patch in (RELEASED, ABSENT):
        allowed = {who for who in office.people if await office.may(who, patch)}
        assert allowed == EDITORS
    for patch in (CLEAR, {"spec": {"capital": "2000"}}):
        assert not await office.may(ON_CALL, patch)
    said = await office.tries(ON_CALL, "PATCH", office.bot, ABSENT, MERGE)
    assert "spec.safeMode may only be set to true" in said
    assert "release-safe-mode" in said
    await office.people["tradingbot-edit"].merge(office.bot, ABSENT)
    assert "safeMode" not in (await office.admin.call("GET", office.bot))["spec"]
