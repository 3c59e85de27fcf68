"""Makes and runs the mutants of files: pytest collects once, a fork for each mutant runs the tests of its function.

python dev/campaigns/mutants.py src/tradingbot/recovery/retry.py ..., in a folder of its own that has `src` and `tests`:
the files are changed, and `mutants.json` says what became of each mutant. mutmut has the operators and the switch
between mutants; its own runner collects the tests anew for each of them, which costs several times as much.
"""

from __future__ import annotations

import ast
import gc
import json
import math
import os
import re
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import unified_diff
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

RESULTS = Path("mutants.json")
_SQL = re.compile(r'"(?:BEGIN|COMMIT|DELETE|INSERT|ORDER|PRAGMA|ROLLBACK|SELECT|SET|UPDATE|WHERE)\b')
_JSON_PATH = re.compile(r"'\$[^']*'")
_OPTIONS = [
    "-q", "--tb=native", "--capture=sys", "--rootdir=.", "--import-mode=importlib", "-o", "asyncio_mode=auto",
    "-o", "pythonpath=src tests", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:unraisableexception",
]  # fmt: skip


@dataclass
class Mutant:
    """A changed function: the lines as they were and as they became."""

    file: str
    name: str
    """Of mutmut, with the module; the number in it moves with each edit of the function."""
    digest: str
    """Of the function."""
    was: str
    now: str
    result: str = "not run"
    """Or killed, timeout, survived, no tests."""

    @property
    def function(self) -> str:
        """Of mutmut, with the module."""
        return self.name.partition("__mutmut_")[0]


def mutate(path: Path) -> list[Mutant]:
    """Put all mutants of a file into it, none of them switched on."""
    made = mutate_file_contents(str(path), _bare(path.read_text(encoding="utf-8")))
    path.write_text(made.code, encoding="utf-8")
    lines = made.code.splitlines()
    module = ".".join(path.with_suffix("").parts[1:])

    def body(name: str, function: str) -> list[str]:
        span = made.line_span_by_function_name[name]
        return [line.replace(name, function).strip() for line in lines[span.start - 1 : span.end]]

    mutants = []
    for name in made.mutant_names:
        function = name.partition("__mutmut_")[0]
        diff = list(unified_diff(body(f"{function}__mutmut_orig", function), body(name, function), n=0))[2:]
        was, now = (" ".join(line[1:] for line in diff if line.startswith(sign)) for sign in "-+")
        if _same_sql(was, now):
            continue
        digest = made.hash_by_function_name[function]
        mutants.append(Mutant(str(path), f"{module}.{name}", digest, was, now))
    return mutants


def _same_sql(was: str, now: str) -> bool:
    """Whether only letters changed their case in SQL, which is the same but in a path into JSON."""
    paths, others = _JSON_PATH.findall(was), _JSON_PATH.findall(now)
    return _SQL.search(was) is not None and was.upper() == now.upper() and paths == others


def _bare(code: str) -> str:
    """The code with these decorators of methods as calls after the class: mutmut leaves out what has a decorator."""
    lines = code.splitlines()
    for kind in reversed(ast.parse(code).body):
        if not isinstance(kind, ast.ClassDef):
            continue
        calls = []
        for method in kind.body:
            if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            match method.decorator_list:
                case [ast.Name(id="property" | "recorded" as decorator, lineno=line)]:
                    lines[line - 1] = ""
                    name = f"{kind.name}.{method.name}"
                    calls.append(f"{name} = {decorator}({name})")
        lines[kind.end_lineno : kind.end_lineno] = calls
    return "\n".join(lines) + "\n"


class Runner:
    """A plug-in of pytest: instead of once, it runs the tests for each mutant."""

    def __init__(self, mutants: list[Mutant]) -> None:
        self._mutants = mutants

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """All mutants whose result is not known."""
        gc.collect()
        gc.freeze()
        gc.disable()  # a process that lives for a mutant has no garbage
        tests = self._tests_by_function(session.items)
        if self._fork("", session.items, 60) != "survived":
            raise session.Failed("the tests fail where nothing is changed, if they are run a second time")
        waiting = [mutant for mutant in self._mutants if mutant.result == "not run"]
        for count, mutant in enumerate(waiting, 1):
            timed = sorted(tests[mutant.function], key=lambda item: item[0])
            seconds = sum(taken for taken, _ in timed)
            mutant.result = self._fork(mutant.name, [test for _, test in timed], seconds) if timed else "no tests"
            if count % 25 == 0 or count == len(waiting):
                self.save()
                print(f"{count} of {len(waiting)} mutants run", file=sys.__stdout__, flush=True)
        return True

    def save(self) -> None:
        """What is known of all."""
        RESULTS.write_text(json.dumps([asdict(mutant) for mutant in self._mutants], indent=1), encoding="utf-8")

    def _tests_by_function(self, items: Iterable[pytest.Item]) -> dict[str, list[tuple[float, pytest.Item]]]:
        tests: dict[str, list[tuple[float, pytest.Item]]] = defaultdict(list)
        set_mutant_under_test("stats")
        for item in items:
            begun = time.process_time()
            state()._stats.clear()
            if not _passes(item):
                raise pytest.UsageError(f"{item.nodeid} fails where nothing is changed")
            for function in state()._stats:
                tests[function].append((time.process_time() - begun, item))
        return tests

    def _fork(self, name: str, tests: list[pytest.Item], seconds: float) -> str:
        if (child := os.fork()) == 0:
            code = 1
            try:
                limit = math.ceil(1 + 10 * seconds)
                resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
                signal.alarm(60 + 5 * limit)  # of a test that waits for ever; a busy machine is slow
                set_mutant_under_test(name)
                code = int(not all(_passes(test) for test in tests))
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        return {0: "survived", 256: "killed"}.get(status, "timeout")


def _passes(item: pytest.Item) -> bool:
    item._initrequest()  # type: ignore[attr-defined]  # it may have run before
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def main(files: list[str]) -> int:
    """A mutant that was killed stays so while its function is as it was; the others are tried again."""
    killed = set()
    if RESULTS.exists():
        former = [Mutant(**row) for row in json.loads(RESULTS.read_text(encoding="utf-8"))]
        killed = {(mutant.name, mutant.digest) for mutant in former if mutant.result == "killed"}
    mutants = [mutant for file in files for mutant in mutate(Path(file))]
    for mutant in mutants:
        if (mutant.name, mutant.digest) in killed:
            mutant.result = "killed"
    runner = Runner(mutants)
    code = pytest.main([*_OPTIONS, "tests/unit"], plugins=[runner])
    runner.save()
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
