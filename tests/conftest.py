"""For every tier: generated examples come from a fixed seed, and a slow machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
