"""Strategies that buy dips."""
