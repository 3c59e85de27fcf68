"""What scanners find in manifests, and which of it has been judged to be right as it is."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, order=True)
class Finding:
    """What a scanner says of an object; `where` is case/Kind/name."""

    scanner: str
    check: str
    where: str
    said: str = ""


@dataclass(frozen=True)
class Judged:
    """A check that is not followed, with the reason; `where` has patterns of Finding.where."""

    scanner: str
    check: str
    where: tuple[str, ...]
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Whether it is about this finding."""
        same = (self.scanner, self.check) == (finding.scanner, finding.check)
        return same and any(fnmatchcase(finding.where, pattern) for pattern in self.where)


def parse(text: str) -> list[Judged]:
    """The tables `[[judged]]` of a TOML text; ValueError where one lacks a key, or its reason says nothing."""
    result = []
    for number, entry in enumerate(tomllib.loads(text)["judged"], 1):
        if set(entry) != {"scanner", "check", "where", "reason"}:
            raise ValueError(f"judged {number}: expected scanner, check, where, reason, found {', '.join(entry)}")
        if len(entry["reason"].split()) < 4:
            raise ValueError(f"judged {number}, {entry['check']}: expected a reason, found {entry['reason']!r}")
        result.append(Judged(entry["scanner"], entry["check"], tuple(entry["where"]), entry["reason"]))
    return result


def complaints(findings: Collection[Finding], judged: Iterable[Judged]) -> list[str]:
    """The findings that have no reason, and the reasons that no finding has any more."""
    judged = list(judged)
    bare = [f for f in sorted(findings) if not any(one.covers(f) for one in judged)]
    stale = [
        f"{one.scanner} {one.check}: nothing is found in {pattern} any more; take the pattern out of judged.toml"
        for one in judged
        for pattern in one.where
        if not any(Judged(one.scanner, one.check, (pattern,), one.reason).covers(f) for f in findings)
    ]
    return [f"{f.scanner} {f.check} {f.where}: {f.said}" for f in bare] + stale
