"""The position validator: whether the position is covered, protected and large enough, and what would correct it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class Finding(StrEnum):
    """What is wrong with a position."""

    DUST = "Dust"
    NOT_COVERED = "NotCovered"
    UNPROTECTED = "Unprotected"
    OVERSOLD = "Oversold"


class Correction(StrEnum):
    """What would make it right."""

    NONE = "None"
    LEAVE_DUST = "LeaveDust"
    RECONCILE = "Reconcile"
    ADOPT = "Adopt"
    """A human takes the account's word: what it lacks leaves the books."""
    PROTECT = "Protect"


@dataclass(frozen=True, slots=True)
class Validation:
    """Outcome: valid with no finding but dust."""

    findings: tuple[Finding, ...]

    @property
    def valid(self) -> bool:
        """Whether the position can be relied upon; dust is harmless."""
        return all(finding is Finding.DUST for finding in self.findings)


class PositionValidator:
    """Validates positions of one symbol; `min_position_value` is the least notional, in quote."""

    def __init__(self, symbol: str, min_position_value: Decimal) -> None:
        self.symbol = symbol
        self.min_position_value = min_position_value

    def validate_position(
        self, quantity: Decimal, price: Decimal, *, account_total: Decimal, protected: bool, oversold: Decimal
    ) -> Validation:
        """Compare a position with the account's base (free + locked), its protection and the least value."""
        findings = []
        if oversold > 0:
            findings.append(Finding.OVERSOLD)
        if account_total < quantity:
            findings.append(Finding.NOT_COVERED)
        if quantity > 0:
            if quantity * price < self.min_position_value:
                findings.append(Finding.DUST)
            elif not protected:
                findings.append(Finding.UNPROTECTED)
        return Validation(tuple(findings))

    def suggest_correction(self, validation: Validation, *, compared_again: bool = False) -> Correction:
        """The first thing to do about the findings; a difference that stands when `compared_again` is for people."""
        if Finding.OVERSOLD in validation.findings or Finding.NOT_COVERED in validation.findings:
            return Correction.ADOPT if compared_again else Correction.RECONCILE
        if Finding.UNPROTECTED in validation.findings:
            return Correction.PROTECT
        return Correction.LEAVE_DUST if Finding.DUST in validation.findings else Correction.NONE
