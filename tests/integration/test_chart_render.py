"""What the Helm chart installs: least rights, a restricted pod, and values that are checked."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from support import chart
from tradingbot.gateway.binance import endpoints
from tradingbot_api import names
from tradingbot_api.v1alpha1 import Exchange
from tradingbot_operator import cluster, install_check, leader, settings, uninstall
from tradingbot_operator.certificates import CertificateAuthority
from tradingbot_operator.egress import EgressGroup
from tradingbot_operator.sharding import Shard

OPERATOR_ROLE = f"{chart.NAMESPACE}-{chart.RELEASE}"
_PERMISSION = re.compile(r"^    ([a-z/]+)(?: \(core\))? {2,}([a-z ]+?)(?: {2,}.*)?$", re.M)
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """The chart with its defaults."""
    return chart.render()


def granted(role: dict[str, Any]) -> dict[str, set[str]]:
    """Verbs by resource; the API group of each is checked on the way."""
    groups = {"leases": "coordination.k8s.io", **dict.fromkeys(("configmaps", "events", "persistentvolumeclaims"), "")}
    groups |= dict.fromkeys(("pods", "secrets"), "")
    result: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for resource in rule["resources"]:
            assert rule["apiGroups"] == [groups.get(resource, names.GROUP)], resource
            result[resource] = result.get(resource, set()) | set(rule["verbs"])
    return result


def needed(*, leases: bool, sets: bool = False, everywhere: bool = False) -> dict[str, set[str]]:
    """The permissions that the operator's own code lists; with those of an operator that serves all namespaces."""
    assert cluster.__doc__
    always, of_sets = cluster.__doc__.split("enables TradingBotSets")
    lines = [_PERMISSION.findall(part) for part in (always, of_sets)]
    result = {
        resource: set(verbs.split())
        for resource, verbs in lines[0]
        if (resource == "leases") == leases and (everywhere or not resource.startswith("cluster"))
    }
    for resource, verbs in lines[1] if sets else ():
        result[resource] |= set(verbs.split())
    return result


def test_rights_are_exactly_those_that_the_operator_lists(objects: list[dict[str, Any]]) -> None:
    assert "tradingbots" in needed(leases=False)
    assert granted(chart.one(objects, "ClusterRole", OPERATOR_ROLE)) == needed(leases=False, everywhere=True)
    assert granted(chart.one(objects, "Role", f"{chart.RELEASE}-claims")) == needed(leases=True)


@pytest.mark.parametrize("watched", [(), ("--set", "watchNamespaces={a}")], ids=["everywhere", "one namespace"])
def test_only_where_sets_are_enabled_the_operator_may_make_and_delete_tradingbots(watched: tuple[str, ...]) -> None:
    kind, name = ("Role", f"{chart.RELEASE}-bots") if watched else ("ClusterRole", OPERATOR_ROLE)
    assert not granted(chart.one(chart.render(*watched), kind, name))["tradingbots"] & {"create", "delete"}
    role = chart.one(chart.render(*watched, "--set", "sets.enabled=true"), kind, name)
    assert granted(role) == needed(leases=False, sets=True, everywhere=not watched)


def test_secrets_can_be_made_and_never_read(objects: list[dict[str, Any]]) -> None:
    for role in (o for o in objects if o["kind"] in {"Role", "ClusterRole"}):
        verbs = {verb for rule in role["rules"] if "secrets" in rule["resources"] for verb in rule["verbs"]}
        assert verbs <= {"create"}
        assert "*" not in str(role["rules"])


def test_named_namespaces_give_rights_there_and_nowhere_else() -> None:
    objects = chart.render("--set", "watchNamespaces={a,b}", "--set", "claimsNamespace=claims")
    assert not [o for o in objects if o["kind"] == "ClusterRoleBinding"]
    assert not [o for o in objects if o["metadata"]["name"].startswith(OPERATOR_ROLE)]
    roles = {
        o["metadata"]["namespace"]: granted(o)
        for o in objects
        if o["kind"] == "Role" and not re.search("-(uninstall|install-check-.*)$", o["metadata"]["name"])
    }
    assert roles == {"a": needed(leases=False), "b": needed(leases=False), "claims": needed(leases=True)}
    operator = [o for o in objects if o["kind"] == "RoleBinding" and o["subjects"][0]["name"] == chart.RELEASE]
    bound = {o["metadata"]["namespace"] for o in operator}
    assert bound == {"a", "b", "claims"}
    arguments = chart.one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {"--namespace=a", "--namespace=b", "--claims-namespace=claims"} <= set(arguments)


def test_the_operator_understands_the_arguments_that_the_chart_gives(tmp_path: Path) -> None:
    for name in (settings.CA_CERTIFICATE, settings.CA_KEY):
        (tmp_path / name).write_text("-", encoding="utf-8")
    labels = {"topology.kubernetes.io/zone": "eu-1", "pool": "bots"}
    objects = chart.render(
        "--set", "watchNamespaces={a,b}", "--set", "botImage.tag=v7", "--set", "logLevel=DEBUG",
        "--set-json", f"egressGroups={json.dumps([{'name': 'nat-1', 'nodeSelector': labels}])}",
        "--set", "exchangeWeightPerMinute=1200",
    )  # fmt: skip
    (container,) = chart.one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    ca_dir = next(a.removeprefix("--ca-dir=") for a in container["args"] if a.startswith("--ca-dir="))
    assert ca_dir in mounted
    loaded = settings.load([a.replace(ca_dir, str(tmp_path)) for a in container["args"]], {})
    assert loaded.namespaces == ("a", "b")
    assert loaded.claims_namespace == chart.NAMESPACE
    assert loaded.bot_image == "tradingbot/bot:v7"
    assert loaded.log_level == "debug"
    assert loaded.egress_groups == (EgressGroup("nat-1", labels),)
    assert loaded.exchange_weight == 1200
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"probes": loaded.probe_port, "metrics": loaded.metrics_port}


def test_a_roll_or_a_drained_node_never_leaves_the_cluster_without_an_operator(objects: list[dict[str, Any]]) -> None:
    spec = chart.one(objects, "Deployment")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec["minReadySeconds"] == 5, "the next leader has taken in what is there"
    budget = chart.one(objects, "PodDisruptionBudget")["spec"]
    assert budget["minAvailable"] == 1
    assert budget["selector"] == spec["selector"]
    spread = spec["template"]["spec"]["topologySpreadConstraints"]
    assert {item["topologyKey"] for item in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    # One node is enough to run.
    assert {item["whenUnsatisfiable"] for item in spread} == {"ScheduleAnyway"}


def test_each_shard_is_an_operator_of_its_own_and_the_main_one_leaves_its_bots_to_it(tmp_path: Path) -> None:
    for name in (settings.CA_CERTIFICATE, settings.CA_KEY):
        (tmp_path / name).write_text("-", encoding="utf-8")
    shards = [{"name": "a"}, {"name": "b", "replicas": 1}]
    objects = chart.render(
        "--set-json", f"shards={json.dumps(shards)}", "--set", "podMonitor.enabled=true",
        "--set", "networkPolicy.enabled=true,networkPolicy.namespaces={bots}",
    )  # fmt: skip
    loaded, labels = {}, {}
    for deployment in (item for item in objects if item["kind"] == "Deployment"):
        spec = deployment["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        arguments = [f"--ca-dir={tmp_path}" if a.startswith("--ca-dir=") else a for a in container["args"]]
        loaded[deployment["metadata"]["name"]] = settings.load(arguments, {}).shard
        labels[deployment["metadata"]["name"]] = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        assert spec["replicas"] == (1 if deployment["metadata"]["name"].endswith("-b") else 2)
    a, b = f"{chart.RELEASE}-shard-a", f"{chart.RELEASE}-shard-b"
    assert loaded == {chart.RELEASE: Shard(others=frozenset({"a", "b"})), a: Shard("a"), b: Shard("b")}
    budgets = {
        item["metadata"]["name"]: item["spec"]["selector"]["matchLabels"]
        for item in objects
        if item["kind"] == "PodDisruptionBudget"
    }
    assert budgets.keys() == {chart.RELEASE, a}, "one replica does not hold up the drain of its node"
    for name, selector in budgets.items():
        assert [pod for pod, of in labels.items() if selector.items() <= of.items()] == [name]
    example = yaml.safe_load((chart.ROOT / "examples/monitoring/prometheus.yaml").read_text(encoding="utf-8"))
    scraped = example["scrape_configs"][0]["relabel_configs"][0]["regex"]
    assert all(re.fullmatch(scraped, of["app.kubernetes.io/name"]) for of in labels.values())
    bots = chart.one(objects, "NetworkPolicy", f"{chart.RELEASE}-bots")
    (source,) = bots["spec"]["ingress"][0]["from"]
    for selector in (chart.one(objects, "PodMonitor", chart.RELEASE)["spec"]["selector"], source["podSelector"]):
        (names_in,) = selector["matchExpressions"]
        found = [
            of
            for of in labels.values()
            if selector["matchLabels"].items() <= of.items() and of[names_in["key"]] in names_in["values"]
        ]
        assert len(found) == 3


@pytest.mark.parametrize(
    ("shards", "complaint"),
    [
        ([{"name": "A"}], "pattern"),
        ([{"name": "a" * 21}], "maxLength"),
        ([{"replicas": 2}], "name"),
        ([{"name": "a"}, {"name": "a", "replicas": 1}], "shards: expected each name once, found a, a"),
    ],
    ids=["not a name", "too long", "without a name", "twice"],
)
def test_shards_that_cannot_be_are_refused(shards: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(chart.ChartError, match=complaint):
        chart.render("--set-json", f"shards={json.dumps(shards)}")


def test_a_single_operator_does_not_hold_up_the_drain_of_its_node() -> None:
    objects = chart.render("--set", "replicas=1")
    assert chart.one(objects, "Deployment")["spec"]["replicas"] == 1
    assert not [o for o in objects if o["kind"] == "PodDisruptionBudget"]


def test_the_uninstall_guard_may_list_tradingbots_and_nothing_else(objects: list[dict[str, Any]]) -> None:
    job = chart.one(objects, "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    account = job["spec"]["template"]["spec"]["serviceAccountName"]
    namespaced = chart.render("--set", "watchNamespaces={a,b}")
    for rendered, places in ((objects, {None}), (namespaced, {"a", "b"})):
        bindings = [
            o for o in rendered if o["kind"].endswith("RoleBinding") and account in {s["name"] for s in o["subjects"]}
        ]
        assert {binding["metadata"].get("namespace") for binding in bindings} == places
        roles = {(b["roleRef"]["kind"], b["roleRef"]["name"], b["metadata"].get("namespace")) for b in bindings}
        given = [o for o in rendered if (o["kind"], o["metadata"]["name"], o["metadata"].get("namespace")) in roles]
        assert [granted(role) for role in given] == [{"tradingbots": {"list"}}] * len(places)
    (container,) = chart.one(namespaced, "Job")["spec"]["template"]["spec"]["containers"]
    command, *options = container["args"]
    assert command == "uninstall-check"
    assert uninstall.parser().parse_args(options).namespace == ["a", "b"]
    assert container["image"] == chart.one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]


def test_the_uninstall_guard_can_be_left_out() -> None:
    objects = chart.render("--set", "uninstallGuard.enabled=false")
    assert not [o for o in objects if "uninstall" in o["metadata"]["name"]]


@pytest.mark.parametrize("namespaces", [(), ("b", "a")])
def test_the_install_check_may_look_at_its_own_operator_and_try_tradingbots_and_nothing_else(
    namespaces: tuple[str, ...],
) -> None:
    served = ("--set", f"watchNamespaces={{{','.join(namespaces)}}}") if namespaces else ()
    objects = chart.render(*served, "--set", "claimsNamespace=claims")
    pod = chart.one(objects, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    account = pod["spec"]["serviceAccountName"]
    assert not [o for o in objects if o["kind"] == "ClusterRoleBinding" and account in str(o["subjects"])]
    bound = {
        (o["roleRef"]["name"], o["metadata"]["namespace"])
        for o in objects
        if o["kind"] == "RoleBinding" and account in {subject["name"] for subject in o["subjects"]}
    }
    given = [
        (o["metadata"]["namespace"], rule["resources"], rule.get("resourceNames"), rule["verbs"])
        for o in objects
        if o["kind"] == "Role" and (o["metadata"]["name"], o["metadata"]["namespace"]) in bound
        for rule in o["rules"]
    ]
    lease = leader.lease_name(tuple(sorted(namespaces)))
    assert given == [
        (chart.NAMESPACE, ["deployments"], [chart.RELEASE], ["get"]),
        ("claims", ["leases"], [lease], ["get"]),
        *((place, ["tradingbots"], None, ["create"]) for place in namespaces or (chart.NAMESPACE,)),
    ]
    (container,) = pod["spec"]["containers"]
    command, *options = container["args"]
    assert command == "install-check"
    asked = install_check.parser().parse_args(options)
    assert (asked.deployment, asked.deployment_namespace) == (chart.RELEASE, chart.NAMESPACE)
    assert (asked.namespace, asked.claims_namespace) == (list(namespaces), "claims")


def test_images_that_the_bots_themselves_could_not_run_are_refused() -> None:
    digest = f"sha256:{'a' * 64}"
    options = ("--set", "allowedImages.enabled=true", "--set", "allowedImages.prefixes={registry.example.com/team/}")
    with pytest.raises(
        chart.ChartError, match=r"botImage: expected .*registry\.example\.com/team/.* got tradingbot/bot:dev"
    ):
        chart.render(*options)
    ours = (*options, "--set", "botImage.repository=registry.example.com/team/bot")
    pod = chart.one(chart.render(*ours), "Pod")
    assert "--refused-image=not-allowed.invalid/bot" in pod["spec"]["containers"][0]["args"]
    with pytest.raises(chart.ChartError, match="with a digest"):
        chart.render(*ours, "--set", "allowedImages.digest=true")
    pinned = chart.render(*ours, "--set", "allowedImages.digest=true", "--set", f"botImage.digest={digest}")
    arguments = chart.one(pinned, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--bot-image=registry.example.com/team/bot:dev@{digest}" in arguments
    with pytest.raises(chart.ChartError, match=r"allowedImages\.prefixes: expected"):
        chart.render("--set", "allowedImages.enabled=true")


@pytest.mark.parametrize("kind", ["Deployment", "Job", "Pod"])
def test_pods_are_restricted(objects: list[dict[str, Any]], kind: str) -> None:
    found = chart.one(objects, kind)
    pod = found["spec"] if kind == "Pod" else found["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == RESTRICTED
    assert container["resources"]["limits"]["memory"]
    assert not container.get("env")
    assert chart.one(objects, "ServiceAccount", pod["serviceAccountName"])


def test_the_operator_is_probed(objects: list[dict[str, Any]]) -> None:
    (container,) = chart.one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)


def test_the_operator_can_sign_with_the_authority_that_the_chart_makes(
    objects: list[dict[str, Any]], tmp_path: Path
) -> None:
    secret = chart.one(objects, "Secret")
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    for name, value in secret["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(value))
    assert CertificateAuthority.load(tmp_path).pem.startswith(b"-----BEGIN CERTIFICATE")


def test_an_authority_of_ones_own_is_used_and_none_is_made() -> None:
    objects = chart.render("--set", "caSecretName=mine")
    assert not [o for o in objects if o["kind"] == "Secret"]
    volumes = chart.one(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"secretName": "mine", "defaultMode": 0o440} in [volume.get("secret") for volume in volumes]


def test_monitoring_is_installed_only_when_asked_for(objects: list[dict[str, Any]]) -> None:
    assert not [o for o in objects if o["apiVersion"].startswith("monitoring.coreos.com")]
    asked = chart.render("--set", "prometheusRule.enabled=true", "--set", "podMonitor.enabled=true")
    kinds = [o["kind"] for o in asked if o["apiVersion"].startswith("monitoring.coreos.com")]
    assert sorted(kinds) == ["PodMonitor", "PodMonitor", "PrometheusRule"]


@pytest.mark.parametrize(
    ("option", "instead"),
    [("podMonitor.enabled=true", "annotations"), ("prometheusRule.enabled=true", "prometheusRule.configMap=true")],
)
def test_monitoring_that_nobody_would_take_up_is_refused_with_what_to_do(option: str, instead: str) -> None:
    name = option.removesuffix("=true")
    with pytest.raises(chart.ChartError, match=rf"{name}: expected the API monitoring\.coreos\.com/v1.*{instead}"):
        chart.render("--set", option, prometheus_operator=False)


@pytest.mark.parametrize(
    ("options", "annotated"),
    [
        pytest.param((), True, id="defaults"),
        pytest.param(("--set", "podMonitor.enabled=true"), False, id="never-scraped-twice"),
        pytest.param(("--set", "scrapeAnnotations.enabled=false"), False, id="switched-off"),
    ],
)
def test_operator_and_bots_are_annotated_where_no_monitor_finds_them(options: tuple[str, ...], annotated: bool) -> None:
    template = chart.one(chart.render(*options), "Deployment")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    expected = {"scrape": "true", "port": str(ports["metrics"]), "path": "/metrics"} if annotated else {}
    found = {
        key.removeprefix("prometheus.io/"): value
        for key, value in template["metadata"]["annotations"].items()
        if key.startswith("prometheus.io/")
    }
    assert found == expected
    assert ("--scrape-annotations" in container["args"]) is annotated


def test_annotations_of_ones_own_win() -> None:
    own = ("--set-string", r"podAnnotations.prometheus\.io/scrape=false", "--set-string", "podAnnotations.a=b")
    annotations = chart.one(chart.render(*own), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert (annotations["prometheus.io/scrape"], annotations["a"]) == ("false", "b")


def test_alerts_can_be_left_out_by_name_and_carry_labels_of_ones_own() -> None:
    def alerts(*options: str) -> dict[str, dict[str, str]]:
        rules = chart.one(chart.render("--set", "prometheusRule.enabled=true", *options), "PrometheusRule")
        found = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
        return {rule["alert"]: rule["labels"] for rule in found if "alert" in rule}

    own = ("--set", "prometheusRule.exclude={DailyLossNear}", "--set", "prometheusRule.alertLabels.team=desk")
    plain, changed = alerts(), alerts(*own, "--set", "prometheusRule.alertLabels.severity=none")
    assert set(plain) - set(changed) == {"DailyLossNear"}
    assert changed == {name: {**plain[name], "team": "desk"} for name in changed}
    with pytest.raises(chart.ChartError, match=r"prometheusRule\.exclude: .*found DailyLoss"):
        alerts("--set", "prometheusRule.exclude={DailyLoss}")


def test_dashboards_are_installed_under_the_label_that_grafana_looks_for(objects: list[dict[str, Any]]) -> None:
    def found(rendered: list[dict[str, Any]]) -> dict[str, str]:
        maps = [o for o in rendered if o["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
        return {name: text for item in maps for name, text in item["data"].items()}

    assert not found(objects)
    files = {path.name: path.read_text(encoding="utf-8") for path in (chart.CHART / "dashboards").iterdir()}
    assert found(chart.render("--set", "dashboards.enabled=true")) == files


def test_bots_may_reach_the_exchange_and_be_reached_by_operator_and_prometheus_and_nothing_else() -> None:
    options = ("networkPolicy.enabled=true", "watchNamespaces={a,b}")
    objects = chart.render(*(part for option in options for part in ("--set", option)))
    first, second = (o for o in objects if o["kind"] == "NetworkPolicy" and o["metadata"]["name"].endswith("-bots"))
    assert (first["metadata"]["namespace"], second["metadata"]["namespace"]) == ("a", "b")
    policy = first["spec"]
    assert policy == second["spec"]
    assert policy["podSelector"] == {"matchExpressions": [{"key": names.BOT_LABEL, "operator": "Exists"}]}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    of_operator, of_prometheus = policy["ingress"]
    (peer,) = of_operator["from"]
    deployment = chart.one(objects, "Deployment")
    assert peer["podSelector"] == deployment["spec"]["selector"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": chart.NAMESPACE}}
    assert of_operator["ports"] == [{"protocol": "TCP", "port": names.CONTROL_PORT}]
    assert of_prometheus["ports"] == [{"protocol": "TCP", "port": names.PROBE_PORT}]
    of_names, of_exchange = policy["egress"]
    assert {(port["protocol"], port["port"]) for port in of_names["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert set(of_exchange) == {"to", "ports"}
    addresses = endpoints(Exchange(environment="Live", credentials_secret_ref={"name": "binance"}))
    asked = {urlsplit(url).port or 443 for url in (addresses.rest, addresses.ws_api, addresses.streams)}
    assert {port["port"] for port in of_exchange["ports"]} == asked


def test_the_operator_may_reach_bots_and_the_api_server_and_be_reached_by_prometheus_and_nothing_else() -> None:
    options = ("networkPolicy.enabled=true", "watchNamespaces={a}", "networkPolicy.apiServerPorts={16443}")
    objects = chart.render(*(part for option in options for part in ("--set", option)))
    policy = chart.one(objects, "NetworkPolicy", chart.RELEASE)["spec"]
    deployment = chart.one(objects, "Deployment")
    for workload in (deployment, chart.one(objects, "Job")):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        assert names.BOT_LABEL not in labels
    of_bots = {"matchExpressions": [{"key": names.BOT_LABEL, "operator": "Exists"}]}
    assert policy["podSelector"]["matchExpressions"] == [{"key": names.BOT_LABEL, "operator": "DoesNotExist"}]
    (of_prometheus,) = policy["ingress"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert of_prometheus["ports"] == [{"protocol": "TCP", "port": ports["metrics"]}]
    _, to_bots, to_api_server = policy["egress"]
    assert to_bots == {
        "to": [{"namespaceSelector": {}, "podSelector": of_bots}],
        "ports": [{"protocol": "TCP", "port": names.CONTROL_PORT}],
    }
    assert to_api_server == {"ports": [{"protocol": "TCP", "port": 16443}]}


def test_the_paper_exchange_is_reached_where_a_value_says_so() -> None:
    options = ("networkPolicy.enabled=true", "networkPolicy.namespaces={a}", "networkPolicy.paperExchange=true")
    objects = chart.render(*(part for option in options for part in ("--set", option)))
    *_, of_paper = chart.one(objects, "NetworkPolicy", f"{chart.RELEASE}-bots")["spec"]["egress"]
    (example,) = (
        document
        for document in yaml.safe_load_all((chart.ROOT / "examples/paper-exchange.yaml").read_text(encoding="utf-8"))
        if document["kind"] == "Deployment"
    )
    template = example["spec"]["template"]
    assert of_paper["to"] == [{"podSelector": {"matchLabels": template["metadata"]["labels"]}}]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert of_paper["ports"] == [{"protocol": "TCP", "port": ports["api"]}]


def test_the_paper_exchange_of_the_chart_is_that_of_the_examples_and_only_bots_reach_it() -> None:
    options = ("--set", "paperExchange.enabled=true,networkPolicy.enabled=true,networkPolicy.namespaces={a}")
    name, of_paper = "app.kubernetes.io/name", {"app.kubernetes.io/name": "paper-exchange"}
    rendered = [o for o in chart.render(*options) if o["metadata"].get("labels", {}).get(name) == "paper-exchange"]
    for item in rendered:
        assert item["metadata"].pop("namespace") == chart.NAMESPACE
        item["metadata"]["labels"].pop("app.kubernetes.io/managed-by")
    policy = rendered.pop(next(place for place, o in enumerate(rendered) if o["kind"] == "NetworkPolicy"))["spec"]
    example = list(yaml.safe_load_all((chart.ROOT / "examples/paper-exchange.yaml").read_text(encoding="utf-8")))
    assert sorted(rendered, key=lambda o: str(o["kind"])) == sorted(example, key=lambda o: str(o["kind"]))

    assert (policy["podSelector"], policy["egress"]) == ({"matchLabels": of_paper}, [])
    ((peer,),) = (rule["from"] for rule in policy["ingress"])
    bots = {"matchExpressions": [{"key": names.BOT_LABEL, "operator": "Exists"}]}
    assert peer == {"namespaceSelector": {}, "podSelector": bots}
    *_, of_bots = chart.one(chart.render(*options), "NetworkPolicy", f"{chart.RELEASE}-bots")["spec"]["egress"]
    there = {"matchLabels": {"kubernetes.io/metadata.name": chart.NAMESPACE}}
    assert of_bots["to"] == [{"namespaceSelector": there, "podSelector": {"matchLabels": of_paper}}]
    assert of_bots["ports"] == [*policy["ingress"][0]["ports"]]


def test_policies_without_a_namespace_are_refused() -> None:
    with pytest.raises(chart.ChartError, match=r"networkPolicy\.namespaces"):
        chart.render("--set", "networkPolicy.enabled=true")


def test_only_one_release_of_a_cluster_makes_what_is_the_whole_clusters() -> None:
    named_alike = chart.render("--set", "watchNamespaces={a}", "--set", "people.enabled=false")
    assert {o["kind"] for o in named_alike if "namespace" not in o["metadata"]} == set()


@pytest.mark.parametrize(
    ("option", "named"),
    [
        pytest.param("replica=2", "replica", id="unknown-value"),
        pytest.param("replicas=0", "replicas", id="no-operator"),
        pytest.param("logLevel=LOUD", "logLevel", id="unknown-level"),
        pytest.param("watchNamespaces={Upper}", "watchNamespaces", id="no-namespace"),
        pytest.param("image.pullPolicy=Sometimes", "pullPolicy", id="unknown-pull-policy"),
        pytest.param("podMonitor.interval=soon", "interval", id="no-duration"),
        pytest.param("scrapeAnnotations.enabled=1", "scrapeAnnotations", id="no-boolean-for-annotations"),
        pytest.param("allowedImages.prefixes={a b}", "prefixes", id="no-image"),
        pytest.param("botImage.digest=latest", "digest", id="no-digest"),
        pytest.param("egressGroups[0].name=nat-1", "nodeSelector", id="no-labels-of-a-group"),
        pytest.param("people.enabled=1", "people", id="no-boolean-for-people"),
        pytest.param("prometheusRule.enabled=1", "prometheusRule", id="no-boolean"),
        pytest.param("prometheusRule.thresholds.dailyLossRatio=1.5", "dailyLossRatio", id="ratio-over-1"),
        pytest.param("prometheusRule.thresholds.botDownFor=soon", "botDownFor", id="threshold-no-duration"),
        pytest.param("prometheusRule.thresholds.botDown=1m", "botDown", id="unknown-threshold"),
    ],
)
def test_wrong_values_are_refused_by_name(option: str, named: str) -> None:
    with pytest.raises(chart.ChartError, match=named):
        chart.render("--set", option)


@pytest.mark.parametrize("file", sorted((chart.ROOT / "examples").glob("*.yaml")), ids=lambda file: str(file.name))
def test_examples_run_restricted_pods_and_hold_no_secrets(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
        assert document["kind"] != "Secret"
        if document["kind"] != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == RESTRICTED
            assert container["resources"]["limits"]["memory"]
