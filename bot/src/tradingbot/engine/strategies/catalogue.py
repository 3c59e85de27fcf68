"""Which strategies there are: built in, of installed packages, and of modules in a folder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel

from tradingbot.engine.strategies.base import Strategy

ENTRY_POINTS: Final = "tradingbot.strategies"
"""Group of entry points by which a package offers strategies: a name of one's own, and the class."""
MODULE_PREFIX: Final = "tradingbot_strategy_"


@dataclass(frozen=True, slots=True)
class Offered:
    """A strategy and where it comes from, for people."""

    kind: type[Strategy]
    source: str


class Catalogue:
    """Strategies by name. One that cannot be used is a line in `problems` and takes no other with it."""

    def __init__(self, built_in: Iterable[type[Strategy]]) -> None:
        self.strategies = {kind.name: Offered(kind, "built in") for kind in built_in}
        self.problems: list[str] = []

    def add_packages(self) -> None:
        """Take what installed packages offer by entry points."""
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
            source = f"package {point.dist.name} {point.dist.version}" if point.dist else f"entry point {point.name}"
            try:
                found = point.load()
            except (Exception, SystemExit) as error:  # somebody else's code
                self.problems.append(f"{source}: {point.value} cannot be loaded: {type(error).__name__}: {error}")
                continue
            self._add(found, source)

    def add_modules(self, folder: Path) -> None:
        """Take the strategies that the Python files of a folder define; a folder that is absent has none."""
        for path in sorted(folder.glob("[!_]*.py")):
            source = f"module {path.name}"
            try:
                module = _load(path)
            except (Exception, SystemExit) as error:  # somebody else's code
                self.problems.append(f"{source}: cannot be loaded: {type(error).__name__}: {error}")
                continue
            defined = [
                kind
                for _, kind in inspect.getmembers(module, inspect.isclass)
                if issubclass(kind, Strategy) and kind.__module__ == module.__name__ and not inspect.isabstract(kind)
            ]
            if not defined:
                self.problems.append(f"{source}: defines no strategy, a subclass of tradingbot.strategy.Strategy")
            for kind in defined:
                self._add(kind, source)

    def _add(self, found: Any, source: str) -> None:
        problem = _unusable(found)
        if problem is None and (other := self.strategies.get(found.name)) is not None:
            problem = f"its name {found.name!r} is that of a strategy that is {other.source}"
        if problem is not None:
            self.problems.append(f"{source}: {getattr(found, '__name__', found)!s}: {problem}")
            return
        self.strategies[found.name] = Offered(found, source)


def _unusable(found: Any) -> str | None:
    if not (inspect.isclass(found) and issubclass(found, Strategy)):
        return "expected a subclass of tradingbot.strategy.Strategy"
    if inspect.isabstract(found):
        return f"it lacks {', '.join(sorted(found.__abstractmethods__))}"
    if not isinstance(getattr(found, "name", None), str):
        return "it lacks a name"
    if not (inspect.isclass(found.Parameters) and issubclass(found.Parameters, BaseModel)):
        return f"Parameters: expected a pydantic model, got {found.Parameters!r}"
    return None


def _load(path: Path) -> ModuleType:
    name = MODULE_PREFIX + path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
