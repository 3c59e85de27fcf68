"""Any spec that the API server takes is brought about or explained, and from any of them the bot comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from local_kubernetes.local import LocalCluster

from campaigns.random_specs import specs, walk, walking

pytestmark = pytest.mark.cluster
SEEDS = range(1, 5)
SPECS = 6


async def test_any_state_is_reached_from_any_other_and_then_nothing_is_written(
    served_cluster: LocalCluster, tmp_path: Path
) -> None:
    # Drawn before the doubles answer in this very process.
    drawn = {number: specs(number, SPECS) for number in SEEDS}
    async with walking(served_cluster, tmp_path) as scene:
        await scene.create("witness")
        await scene.reaches("Trading", "witness", seconds=60)
        walks = await asyncio.gather(*(walk(scene, number, found, 0.0) for number, found in drawn.items()))
        settled = await scene.audited()
        await asyncio.sleep(2.0)
        assert await scene.audited() == settled
        taken, refused = sum(item.taken for item in walks), sum(item.refused for item in walks)
        print(f"{taken} specs brought about, {refused} refused by admission, {[item.states for item in walks]}")
        assert [violation for item in walks for violation in item.violations] == []
        assert taken >= len(SEEDS) * SPECS // 2
