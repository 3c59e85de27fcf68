"""Promises about the volume claim of a bot's store: nobody takes up another's books unasked."""

from __future__ import annotations

from typing import Any

import pytest

from support.operator_objects import UID, seen_bot
from tradingbot_api import names
from tradingbot_operator import desired
from tradingbot_operator.desired import Identity
from tradingbot_operator.volumes import Standing, VolumeExistsError, standing

FORMER = "0a1b2c3d-0000-4000-8000-000000000000"
BEFORE, AFTER = "2026-11-22T10:59:59Z", "2026-11-22T11:00:01Z"
"""seen_bot() was created at 11:00:00."""


def claim(policy: str = "Retain", uid: str | None = UID, created: str = AFTER, **metadata: Any) -> dict[str, Any]:
    """A claim as a TradingBot `uid` of the same name made it; None: by a version that did not label it."""
    spec = desired.parse_spec(seen_bot(storage={"reclaimPolicy": policy}))
    raw = desired.volume_claim(Identity("trading", "btcusdt", uid or UID), spec)
    assert raw is not None
    if uid is None:
        del raw["metadata"]["labels"][names.BOT_UID_LABEL]
    raw["metadata"] |= {"uid": "pvc-1", "creationTimestamp": created, **metadata}
    return raw


ADOPTED = {"annotations": {names.ADOPT_VOLUME_ANNOTATION: "pvc-1"}}
OTHER_WORD = {"annotations": {names.ADOPT_VOLUME_ANNOTATION: "pvc-0"}}


@pytest.mark.parametrize(
    ("raw", "bot", "living", "expected"),
    [
        pytest.param(claim(), {}, (), Standing.OWN, id="made-for-it"),
        pytest.param(claim("Delete"), {}, (), Standing.OWN, id="made-for-it-and-owned"),
        pytest.param(claim(uid=FORMER, created=BEFORE), {}, (), Standing.LEFT, id="a-former-bots"),
        pytest.param(
            claim(uid=FORMER, created=BEFORE), {"status": {"accountUID": "1"}}, (), Standing.LEFT, id="and-it-ran"
        ),
        pytest.param(claim(uid=FORMER), {"metadata": ADOPTED}, (), Standing.ADOPT, id="a-human-said-so"),
        pytest.param(claim(uid=FORMER), {"metadata": OTHER_WORD}, (), Standing.LEFT, id="said-of-another-claim"),
        pytest.param(claim(uid=FORMER), {"metadata": ADOPTED}, (FORMER,), Standing.USED, id="its-bot-still-exists"),
        pytest.param(
            claim("Delete", FORMER), {"metadata": ADOPTED}, (), Standing.FORMER, id="goes-with-its-former-bot"
        ),
        pytest.param(
            claim(deletionTimestamp="2026-11-22T12:00:00Z"), {}, (), Standing.FORMER, id="is-being-removed"
        ),
        pytest.param(claim(uid=None), {}, (), Standing.HISTORY, id="no-mark-made-in-its-lifetime"),
        pytest.param(claim(uid=None, created=BEFORE), {}, (), Standing.LEFT, id="no-mark-and-older-than-it"),
        pytest.param(
            claim(uid=None, created=BEFORE), {"status": {"podName": "btcusdt"}}, (), Standing.HISTORY,
            id="no-mark-and-it-ran-on-it",
        ),
        pytest.param(claim(labels={}), {"metadata": ADOPTED}, (), Standing.FOREIGN, id="somebody-elses"),
        pytest.param(
            claim(labels={names.BOT_LABEL: "ethusdt"}), {"metadata": ADOPTED}, (), Standing.FOREIGN, id="another-bots"
        ),
        pytest.param(
            claim(ownerReferences=[{"kind": "Database", "name": "db", "uid": "x", "controller": True}]),
            {"metadata": ADOPTED}, (), Standing.FOREIGN, id="owned-by-somebody-else",
        ),
    ],
)  # fmt: skip
def test_a_volume_is_a_bots_own_or_taken_up_only_where_a_human_said_so(
    raw: dict[str, Any], bot: dict[str, Any], living: tuple[str, ...], expected: Standing
) -> None:
    assert standing(raw, seen_bot(**bot), frozenset({UID, *living})) is expected


def test_a_volume_that_was_left_is_told_with_the_command_that_takes_it_up() -> None:
    error = VolumeExistsError(seen_bot(), claim(uid=FORMER))
    assert "kubectl annotate tradingbot -n trading btcusdt tradingbot.dev/adopt-volume=pvc-1" in str(error)
    assert (error.reason, error.passing) == ("VolumeExists", False)
