"""The models take and refuse what the API server does, so that a bot without a cluster has the same rules."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from support.manifests import Case, cases
from tradingbot_api import names
from tradingbot_api.kill_switch import KillSwitchSpec
from tradingbot_api.v1alpha1 import TradingBotSpec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("case", cases("accepted"), ids=str)
def test_models_take_what_the_api_server_takes(case: Case) -> None:
    for manifest in filter(None, (case.manifest, case.update)):
        spec = TradingBotSpec.model_validate(manifest["spec"])
        again = TradingBotSpec.model_validate_json(spec.model_dump_json(by_alias=True, exclude_none=True))
        assert again == spec


@pytest.mark.parametrize("case", [case for case in cases("refused") if case.in_models], ids=str)
def test_models_refuse_what_the_api_server_refuses_and_name_the_field(case: Case) -> None:
    with pytest.raises(ValidationError) as caught:
        TradingBotSpec.model_validate(case.manifest["spec"])
    # A rule over several fields has the path of their parent; its message names the field.
    told = [f"spec.{'.'.join(map(str, error['loc']))} {error['msg']}" for error in caught.value.errors()]
    path = case.field.replace("[", ".").replace("]", "")
    assert any(
        line.startswith(path) or (path.startswith(line.split(" ")[0].rstrip(".")) and path.split(".")[-1] in line)
        for line in told
    ), told


def test_spec_rules_over_several_fields_say_the_same_words_as_the_resource() -> None:
    for case in cases("refused"):
        if case.id in (
            "paper-without-base-url",
            "live-without-storage",
            "position-value-above-capital",
            "trailing-above-the-stop",
        ):
            with pytest.raises(ValidationError, match=case.message):
                TradingBotSpec.model_validate(case.manifest["spec"])


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: str(file.name))
def test_example_bots_are_valid(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
        if document["kind"] == names.KIND:
            TradingBotSpec.model_validate(document["spec"])
        elif document["kind"] == names.KILL_SWITCH.kind:
            KillSwitchSpec.model_validate(document["spec"])
