"""Label selectors as Kubernetes has them: the model and what it selects."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from tradingbot_api.base import Model

LabelText = Annotated[str, StringConstraints(max_length=317)]


class SelectorOperator(StrEnum):
    """How a requirement compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class Requirement(Model):
    """One requirement of a label."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                    "fieldPath": ".values",
                    "message": "values are required with In and NotIn, and only allowed there",
                }
            ]
        }
    )

    key: LabelText = Field(description="Name of the label.")
    operator: SelectorOperator = Field(description="How the label is compared.")
    values: list[LabelText] = Field(default_factory=list, max_length=64, description="What it is compared with.")

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy it; as in Kubernetes NotIn is satisfied where there is no such label."""
        value = labels.get(self.key)
        match self.operator:
            case SelectorOperator.IN:
                return value in self.values
            case SelectorOperator.NOT_IN:
                return value not in self.values
            case SelectorOperator.EXISTS:
                return value is not None
            case SelectorOperator.DOES_NOT_EXIST:
                return value is None


class LabelSelector(Model):
    """All requirements must hold; an empty selector selects everything."""

    match_labels: dict[str, LabelText] = Field(
        default_factory=dict, max_length=32, description="Labels that must be there with these values."
    )
    match_expressions: list[Requirement] = Field(
        default_factory=list, max_length=32, description="Further requirements."
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it selects an object with these labels."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )
