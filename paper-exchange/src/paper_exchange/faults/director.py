"""Carries out the steps of scenarios when their time has come, and writes down what came of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from paper_exchange.amounts import ControlInvalidError
from paper_exchange.core.errors import ExchangeError
from paper_exchange.faults.control import Faults
from paper_exchange.faults.model import Fault
from paper_exchange.faults.moves import AccountMove, MarketMove
from paper_exchange.faults.scenario import Refusal, Scenario, Step
from paper_exchange.faults.stagehand import Stagehand


class Director:
    """One scenario at a time; `clock` tells seconds and only goes forward."""

    def __init__(
        self,
        faults: Faults,
        stagehand: Stagehand,
        connections: Mapping[str, Callable[[], int]],
        refuse: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        """`connections` has what `cut` and `close` do to all WebSockets; `refuse` shuts the door for some seconds."""
        self._faults = faults
        self._stagehand = stagehand
        self._connections = connections
        self._refuse = refuse
        self._clock = clock
        self._began = 0.0
        self._steps: deque[Step] = deque()
        self.name = ""

    def begin(self, scenario: Scenario) -> None:
        """Begin a scenario, in place of what is left of the one before; faults in force stay."""
        self.name = scenario.name
        self._began = self._clock()
        self._steps = deque(scenario.steps)
        self.tick()

    def stop(self) -> None:
        """Do no more steps."""
        self._steps.clear()

    def describe(self) -> dict[str, Any]:
        """What is still to come, and in how many seconds."""
        passed = self._clock() - self._began
        left = [{"in": round(step.at - passed, 1), **step.written} for step in self._steps]
        return {"name": self.name if left else None, "steps": left}

    def tick(self) -> None:
        """Time passes: carry out what is due."""
        while self._steps and self._steps[0].at <= self._clock() - self._began:
            self._carry_out(self._steps.popleft())

    def _carry_out(self, step: Step) -> None:
        error = None
        try:
            if isinstance(step.action, Fault):
                self._faults.begin(step.action)
                return
            if isinstance(step.action, MarketMove):
                self._stagehand.move_market(step.action)
            elif isinstance(step.action, AccountMove):
                self._stagehand.move_account(step.action)
            elif isinstance(step.action, Refusal):
                self._refuse(step.action.seconds)
            else:
                self._connections[step.action]()
        except (ControlInvalidError, ExchangeError) as refused:
            # One step that does not fit the market or an account must not end the others.
            error = str(refused)
        self._faults.record.step(step.written, error)
