"""JSON schemas of objects, from what an API server publishes and from CRDs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
REFERENCE = "#/components/schemas/"


def file(folder: Path, version: str) -> Path:
    """Where the OpenAPI document of an API version is in a folder of them, by the names of Kubernetes' source."""
    return folder / f"{'apis' if '/' in version else 'api'}__{version.replace('/', '__')}_openapi.json"


def of_published(published: Schema, kind: str) -> Schema:
    """The schema of a kind with all that it refers to, from the OpenAPI v3 document of its API version.

    Fields that the document does not name are refused. KeyError where it has no such kind.
    """
    schemas = published["components"]["schemas"]
    roots = [
        name
        for name, schema in schemas.items()
        if any(known["kind"] == kind for known in schema.get("x-kubernetes-group-version-kind", ()))
    ]
    if not roots:
        raise KeyError(kind)
    root = roots[0]
    taken: Schema = {}
    open_ends = [root]
    while open_ends:
        name = open_ends.pop()
        if name not in taken:
            taken[name] = closed(schemas[name])
            open_ends += _referred(taken[name])
    return {"allOf": [{"$ref": REFERENCE + root}], "components": {"schemas": taken}}


def of_crd(crd: Schema, version: str) -> Schema:
    """The schema of a version of a CRD's kind; apiVersion, kind and metadata are not looked at."""
    (served,) = (one for one in crd["spec"]["versions"] if one["name"] == version)
    schema = copy.deepcopy(served["schema"]["openAPIV3Schema"])
    for name in ("apiVersion", "kind", "metadata"):
        schema["properties"].setdefault(name, {})
    return closed(schema)


def closed(schema: Schema) -> Schema:
    """The schema with unknown fields refused, as `kubectl apply` refuses them, wherever fields are named."""
    result: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: closed(inner) for name, inner in value.items()}
        elif isinstance(value, dict):
            result[key] = closed(value)
        elif isinstance(value, list):
            result[key] = [closed(item) if isinstance(item, dict) else item for item in value]
        else:
            result[key] = value
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def _referred(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _referred(item)]
    if not isinstance(value, dict):
        return []
    if isinstance(found := value.get("$ref"), str):
        return [found.removeprefix(REFERENCE)]
    return [name for item in value.values() for name in _referred(item)]
