"""Promises of the install check: what is wrong is told with what was expected and found, and what is right is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tradingbot_api import crd, names
from tradingbot_api.v1alpha1 import TradingBotSpec
from tradingbot_operator.install_check import (
    admission_trouble,
    deployment_trouble,
    lacks,
    leader_trouble,
    sample,
    samples,
    schema_trouble,
)


def published() -> dict[str, Any]:
    """What an API server publishes of this operator's CRD."""
    (version,) = crd.custom_resource_definition(crd.KINDS[0])["spec"]["versions"]
    kind = {"group": names.GROUP, "version": names.VERSION, "kind": names.KIND}
    schema = {**copy.deepcopy(version["schema"]["openAPIV3Schema"]), "x-kubernetes-group-version-kind": [kind]}
    return {"components": {"schemas": {"list": {}, "bot": schema}}}


def test_the_crd_of_this_operator_and_one_of_a_later_release_are_enough() -> None:
    document = published()
    assert schema_trouble(document) == ""
    spec = document["components"]["schemas"]["bot"]["properties"]["spec"]
    spec["properties"]["new"] = {"type": "string"}
    spec["properties"]["deletionPolicy"]["enum"].append("Later")
    spec["description"] = "said otherwise"
    assert schema_trouble(document) == ""


def test_an_older_crd_is_told_with_the_field_and_an_absent_one_as_absent() -> None:
    document = published()
    spec = document["components"]["schemas"]["bot"]["properties"]["spec"]["properties"]
    del spec["suspend"]
    assert schema_trouble(document).startswith("spec.properties.suspend: expected ")
    document = published()
    spec = document["components"]["schemas"]["bot"]["properties"]["spec"]["properties"]
    spec["deletionDeadlineSeconds"]["maximum"] = 7
    assert schema_trouble(document) == "spec.properties.deletionDeadlineSeconds.maximum: expected 3600, found 7"
    assert "found no such kind" in schema_trouble({"components": {"schemas": {"other": {}}}})


def test_what_is_missing_in_a_list_is_told() -> None:
    assert lacks({"enum": ["a", "b"]}, {"enum": ["b", "c"]}, "spec") == "spec.enum: expected a in it, found ['b', 'c']"


@pytest.mark.parametrize(
    ("wanted", "ready", "told"),
    [(2, 2, ""), (2, 1, "expected 2 ready replicas, found 1"), (1, None, "expected 1 ready replicas, found 0")],
)
def test_every_replica_must_be_ready(wanted: int, ready: int | None, told: str) -> None:
    status = {} if ready is None else {"readyReplicas": ready}
    assert deployment_trouble({"spec": {"replicas": wanted}, "status": status}) == told
    assert "found none" in deployment_trouble(None)


def lease(holder: str, renewed: str) -> dict[str, Any]:
    """A Lease as it stands."""
    return {"spec": {"holderIdentity": holder, "renewTime": renewed}}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param(lease("op-1", "1"), lease("op-1", "2"), "", id="renewed"),
        pytest.param(lease("op-2", "1"), lease("op-1", "2"), "", id="taken"),
        pytest.param(lease("op-1", "1"), lease("op-1", "1"), "expected a renewal", id="of-a-dead-one"),
        pytest.param(None, lease("op-1", "1"), "expected a renewal", id="seen-once"),
        pytest.param(lease("", "1"), lease("", "1"), "no operator leads", id="given-up"),
        pytest.param(
            lease("else-1", "1"), lease("else-1", "2"), "expected a holder of op, found else-1", id="of-another"
        ),
        pytest.param(None, None, "found none", id="none"),
    ],
)
def test_who_leads_is_this_release_and_alive(before: Any, after: Any, told: str) -> None:
    said = leader_trouble(before, after, "op")
    assert told in said if told else said == ""


def test_a_refusal_must_be_of_the_field_that_is_wrong() -> None:
    assert admission_trouble("", "") == ""
    assert "found 403" in admission_trouble("403 Forbidden: no", "")
    assert admission_trouble("422 Invalid: spec.capital: must be greater than 0", "spec.capital") == ""
    assert "found it accepted" in admission_trouble("", "spec.capital")
    assert "found 403" in admission_trouble("403 Forbidden: cannot create", "spec.capital")


def test_the_sample_is_a_tradingbot_and_never_makes_a_pod() -> None:
    assert TradingBotSpec.model_validate(sample("trading")["spec"]).suspend is True
    assert [field for _, field in samples("trading", None)] == ["", "spec.capital"]
    assert [field for _, field in samples("trading", "x")] == ["", "spec.capital", "spec.pod.image"]
