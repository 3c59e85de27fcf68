"""Marks the calls that decisions are made of: what goes into each, and what comes out, is all that they depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from inspect import signature
from typing import Any, Protocol, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "is_recorded"


class Recorder(Protocol):
    """Who keeps them."""

    def begin(self) -> bool:
        """A call begins; False within another one, which is kept as a whole."""
        ...

    def end(self, name: str, method: str, arguments: Sequence[Any], outcome: str) -> None:
        """It is over: the object's name, its method, and its result for people."""
        ...


def recorded(method: F) -> F:
    """Mark a method that changes its object, or decides.

    Its arguments must be data: what pydantic makes JSON of, and makes again from that by their types.
    """
    setattr(method, _MARK, True)
    return method


def recorded_methods(kind: type) -> dict[str, Callable[..., Any]]:
    """The marked methods of a class, by name."""
    found = {name: getattr(kind, name, None) for name in dir(kind)}
    return {name: method for name, method in found.items() if method is not None and hasattr(method, _MARK)}


class Recorded:
    """An object whose state follows from how it was made and from its `recorded` calls alone."""

    def record(self, recorder: Recorder, name: str) -> None:
        """Have each call kept from now on; without a recorder a call costs nothing more than any other."""
        for method, plain in recorded_methods(type(self)).items():
            vars(self)[method] = _kept(recorder, name, plain, self)

    def record_no_more(self) -> None:
        """Have none kept any more."""
        for method in recorded_methods(type(self)):
            vars(self).pop(method, None)

    def __getstate__(self) -> dict[str, Any]:
        """Without the one who records."""
        methods = recorded_methods(type(self))
        return {name: value for name, value in vars(self).items() if name not in methods}


def _kept(recorder: Recorder, name: str, plain: Callable[..., Any], thing: Recorded) -> Callable[..., Any]:
    shape = signature(plain)

    @wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = shape.bind(thing, *args, **kwargs)
        if not recorder.begin():
            return plain(thing, *args, **kwargs)
        given.apply_defaults()
        for argument, value in given.arguments.items():
            if isinstance(value, Iterator):  # it can be taken once
                given.arguments[argument] = list(value)
        outcome = ""
        try:
            result = plain(*given.args, **given.kwargs)
            outcome = repr(result)
        except Exception as error:
            outcome = f"raised {error!r}"
            raise
        finally:
            _, *arguments = given.arguments.values()
            recorder.end(name, plain.__name__, arguments, outcome)
        return result

    return call
