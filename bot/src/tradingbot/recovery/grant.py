"""The grant: the operator's permission to add exposure, which ends by itself."""

from __future__ import annotations

from collections.abc import Callable

from tradingbot_api.bot_http import EPOCH_PAST, GRANT_TTL_SECONDS, Grant


class GrantRefusedError(Exception):
    """A grant that is not for this process as it is now; `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class GrantKeeper:
    """Holds the present grant. Without an operator (`required` false) there is none and none is needed."""

    def __init__(self, required: bool, monotonic: Callable[[], float]) -> None:
        self.required = required
        self._monotonic = monotonic
        self._expires_at = float("-inf")
        self._epoch = -1
        self.given = not required
        """Whether this process was named the trader once, if only for a while."""

    def take(
        self,
        grant: Grant,
        *,
        bot_uid: str,
        boot_id: str,
        incarnation: int | None,
        revision: int,
        sent_at: float | None,
    ) -> float:
        """Hold `grant`; returns the seconds left of it. GrantRefusedError where it is for something else.

        `sent_at` is the monotonic time at which the status that the grant answers was sent: counting from there,
        no delay on the way lengthens the grant.
        """
        for name, expected, got in (
            ("botUid", bot_uid, grant.bot_uid),
            ("bootId", boot_id, grant.boot_id),
            ("incarnation", incarnation, grant.incarnation),
            ("revision", revision, grant.revision),
        ):
            if expected != got:
                raise GrantRefusedError("GrantMismatch", f"{name}: expected {expected}, got {got}")
        if grant.epoch < self._epoch:
            raise GrantRefusedError(EPOCH_PAST, f"epoch: expected at least {self._epoch}, got {grant.epoch}")
        if sent_at is None:
            raise GrantRefusedError(
                "SequenceUnknown", f"statusSequence: {grant.status_sequence} was not sent or is long past"
            )
        self._epoch = grant.epoch
        self.given = True
        # A longer time than agreed would outlive the operator's belief that it has ended.
        self._expires_at = max(self._expires_at, sent_at + min(grant.ttl_seconds, GRANT_TTL_SECONDS))
        return self.expires_in

    def name_trader(self) -> None:
        """The claim names this process start, so what former ones left is its to look after; adds no exposure."""
        self.given = True

    def meet(self, epoch: int) -> None:
        """Refuse a call of a former leader or of none (GrantRefusedError), remember a newer leader's; 0 is not told."""
        if epoch < 0 or 0 < epoch < self._epoch:
            raise GrantRefusedError(EPOCH_PAST, f"epoch: expected at least {self._epoch}, got {epoch}")
        self._epoch = max(self._epoch, epoch)

    @property
    def expires_in(self) -> float:
        """Seconds left; 0 where there is none."""
        return max(0.0, self._expires_at - self._monotonic())

    @property
    def allows(self) -> bool:
        """Whether exposure may be added now."""
        return not self.required or self.expires_in > 0
