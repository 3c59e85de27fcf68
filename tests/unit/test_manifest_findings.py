"""The scanners' findings against their reasons, and the schemas that manifests are held to."""

from __future__ import annotations

import findings
import pytest
import schemas

CPU = findings.Finding("checkov", "CKV_K8S_11", "defaults/Deployment/operator", "CPU limits should be set")
REASON = findings.Judged("checkov", "CKV_K8S_11", ("defaults/*",), "a quota makes orders late")


def test_a_finding_with_a_reason_is_no_complaint() -> None:
    assert findings.complaints([CPU], [REASON]) == []


@pytest.mark.parametrize(
    "reason",
    [
        pytest.param(findings.Judged("kube-score", CPU.check, ("*",), "of another scanner"), id="scanner"),
        pytest.param(findings.Judged("checkov", "CKV_K8S_15", ("*",), "of another check"), id="check"),
        pytest.param(findings.Judged("checkov", CPU.check, ("*/Job/*",), "of another object"), id="object"),
    ],
)
def test_a_finding_without_a_reason_is_told_and_so_is_a_reason_without_a_finding(reason: findings.Judged) -> None:
    bare, stale = findings.complaints([CPU], [reason])
    assert bare == "checkov CKV_K8S_11 defaults/Deployment/operator: CPU limits should be set"
    assert f"{reason.scanner} {reason.check}: nothing is found in {reason.where[0]} any more" in stale


def test_each_pattern_of_a_reason_needs_a_finding() -> None:
    wider = findings.Judged("checkov", "CKV_K8S_11", ("defaults/*", "gone/*"), "a quota makes orders late")
    (stale,) = findings.complaints([CPU], [wider])
    assert "gone/*" in stale


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        pytest.param('scanner = "checkov"\ncheck = "A"\nwhere = ["*"]', "reason", id="no-reason"),
        pytest.param('scanner = "checkov"\ncheck = "A"\nwhere = ["*"]\nreason = "fine"', "'fine'", id="empty-word"),
        pytest.param('scanner = "c"\ncheck = "A"\nwhere = ["*"]\nreason = "a b c d"\nx = 1', "x", id="unknown-key"),
    ],
)
def test_a_judgement_without_a_written_reason_is_refused(entry: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        findings.parse(f"[[judged]]\n{entry}\n")


def test_the_schema_of_a_kind_has_what_it_refers_to_and_refuses_unknown_fields() -> None:
    known = {"x-kubernetes-group-version-kind": [{"group": "", "kind": "Thing", "version": "v1"}]}
    inner = {"allOf": [{"$ref": "#/components/schemas/Inner"}], "default": {}}
    published = {
        "components": {
            "schemas": {
                "Thing": {"type": "object", "properties": {"spec": inner}, **known},
                "Inner": {"type": "object", "properties": {"properties": {"type": "string"}}},
                "Labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "Other": {"type": "object"},
            }
        }
    }
    schema = schemas.of_published(published, "Thing")
    taken = schema["components"]["schemas"]
    assert schema["allOf"] == [{"$ref": "#/components/schemas/Thing"}]
    assert set(taken) == {"Thing", "Inner"}
    assert all(one["additionalProperties"] is False for one in taken.values())
    assert schemas.closed(published["components"]["schemas"]["Labels"]) == published["components"]["schemas"]["Labels"]
    with pytest.raises(KeyError):
        schemas.of_published(published, "Unknown")


def test_the_schema_of_a_custom_kind_leaves_free_what_its_crd_leaves_free() -> None:
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {}}}
    root = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"free": free}}}}
    crd = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": root}}]}}
    schema = schemas.of_crd(crd, "v1")
    assert set(schema["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
    assert schema["properties"]["spec"]["additionalProperties"] is False
    assert schema["properties"]["spec"]["properties"]["free"] == free
