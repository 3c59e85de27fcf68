"""Promises of safe mode: every cause and its level, what latches, what engages it and what alone releases it."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tradingbot.applied import Applied, choose_at_start
from tradingbot.config import parse_pod_config, safe_mode_wish
from tradingbot.control import Control
from tradingbot.desk import CONFIG_FACT, Desk
from tradingbot.monitoring.http_api import ControlError
from tradingbot.monitoring.status_feed import StatusFeed
from tradingbot.recovery.pod_annotations import PodAnnotations, safe_mode_wished
from tradingbot.recovery.safe_mode import (
    ANNOTATION,
    ANNOTATION_STANDS,
    BREAKER,
    CAUSES,
    DRAWDOWN,
    LEVEL_WORDS,
    SPEC,
    TWO_TRADERS,
    CauseKind,
    Level,
    SafeMode,
)
from tradingbot.session import Session
from tradingbot.state.store import Store
from tradingbot_api.bot_http import EPOCH_NOT_LEADER, EPOCH_PAST, STALE_REVISION, BotConfig, BotStatus, ImposedCause
from tradingbot_api.conditions import Reason

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "safe-mode.md"
KINDS = pytest.mark.parametrize("kind", CAUSES, ids=lambda kind: kind.id)


# --- the table ---


def table() -> list[list[str]]:
    """The cells of the table of causes in the page for people."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| Id | Source | Reason | Levels | Latched | What ends it |") + 2
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_page_for_people_lists_every_cause_as_it_is() -> None:
    assert table() == [
        [
            kind.id,
            kind.source.value,
            kind.reason.value,
            ", ".join(LEVEL_WORDS[level] for level in kind.levels),
            "yes" if kind.latched else "no",
            kind.clears,
        ]
        for kind in CAUSES
    ]
    assert len({kind.id for kind in CAUSES}) == len(CAUSES)


LEVELS = [(kind, level) for kind in CAUSES for level in kind.levels]


@pytest.mark.parametrize(("kind", "level"), LEVELS, ids=[f"{kind.id}-{level.word}" for kind, level in LEVELS])
def test_of_any_two_causes_the_stricter_one_is_in_force_and_safe_mode_ends_with_the_last(
    kind: CauseKind, level: Level
) -> None:
    for other, other_level in LEVELS:
        if other is kind:
            continue
        safe = SafeMode()
        assert safe.activate(kind, since=NOW, level=level)
        assert safe.activate(other, since=NOW + timedelta(1), level=other_level)
        status = safe.get_safe_mode_status(entries_quiet=True)
        assert status.level == max(level, other_level).word
        assert {cause.id for cause in status.causes} == {kind.id, other.id}
        assert status.causes[0].level == status.level
        assert safe.deactivate(other.id)
        assert (safe.level, safe.should_allow_trading()) == (level, False)
        assert safe.deactivate(kind.id)
        assert (safe.level, safe.should_allow_trading()) == (Level.NORMAL, True)


@KINDS
def test_a_human_clears_latched_causes_and_no_other(kind: CauseKind) -> None:
    safe = SafeMode()
    safe.activate(kind, since=NOW)
    assert safe.clear(kind.id) is kind.latched
    assert safe.has(kind.id) is not kind.latched


@KINDS
def test_latched_causes_survive_a_restart_and_others_do_not(kind: CauseKind) -> None:
    safe, again = SafeMode(), SafeMode()
    safe.activate(kind, since=NOW)
    again.restore_latches(json.loads(json.dumps(safe.latches_to_json())))
    assert again.causes == (safe.causes if kind.latched else [])


def test_a_latched_cause_of_a_newer_version_holds_after_going_back() -> None:
    safe = SafeMode()
    safe.restore_latches(
        [{"id": "new", "source": "Moon", "reason": "Tide", "level": 9, "since": NOW.isoformat(), "clears": "by hand"}]
    )
    assert [(cause.id, cause.reason, cause.level) for cause in safe.causes] == [("new", Reason.UNKNOWN, Level.HALTED)]
    assert safe.clear("new")


def test_the_first_time_of_a_cause_stands_and_the_strictest_is_told_first() -> None:
    safe = SafeMode()
    assert safe.activate(SPEC, since=NOW)
    assert not safe.activate(SPEC, since=NOW + timedelta(1))
    safe.activate(BREAKER, since=NOW - timedelta(1))
    safe.activate(TWO_TRADERS, since=NOW + timedelta(2))
    assert [cause.id for cause in safe.causes] == ["two-traders", "breaker", "spec"]
    assert safe.causes[2].since == NOW


def test_safe_mode_is_acknowledged_only_when_no_entry_is_left() -> None:
    safe = SafeMode()
    assert not safe.get_safe_mode_status(entries_quiet=True).acknowledged
    safe.activate(SPEC, since=NOW)
    assert not safe.get_safe_mode_status(entries_quiet=False).acknowledged
    assert safe.get_safe_mode_status(entries_quiet=True).acknowledged


def test_the_status_tells_of_every_cause_what_it_is_since_when_and_what_ends_it() -> None:
    safe = SafeMode()
    quiet = safe.get_safe_mode_status(entries_quiet=True)
    assert (quiet.level, quiet.engaged, quiet.acknowledged, quiet.causes) == ("Normal", False, False, [])
    assert safe.set(True, TWO_TRADERS, since=NOW, level=Level.REDUCE_ONLY)
    assert not safe.set(True, TWO_TRADERS, since=NOW, level=Level.REDUCE_ONLY)
    safe.activate(ANNOTATION, since=NOW + timedelta(1), clears="take it off")
    status = safe.get_safe_mode_status(entries_quiet=False)
    assert (status.level, status.engaged, status.acknowledged) == ("ReduceOnly", True, False)
    assert [cause.model_dump() for cause in status.causes] == [
        {
            "id": kind.id, "source": kind.source, "reason": kind.reason, "level": level, "since_time": since,
            "clears": clears, "message": None,
        }
        for kind, level, since, clears in (
            (TWO_TRADERS, "ReduceOnly", NOW, TWO_TRADERS.clears),
            (ANNOTATION, "NoNewEntries", NOW + timedelta(1), "take it off"),
        )
    ]  # fmt: skip
    assert safe.set(False, TWO_TRADERS, since=NOW)
    assert not safe.set(False, TWO_TRADERS, since=NOW)
    assert not safe.clear("two-traders")
    assert [cause.id for cause in safe.causes] == ["annotation"]


def test_causes_of_one_level_and_time_are_told_in_one_order() -> None:
    safe = SafeMode()
    for kind in (SPEC, DRAWDOWN, BREAKER):
        safe.activate(kind, since=NOW)
    assert [cause.id for cause in safe.causes] == ["breaker", "drawdown", "spec"]


# --- the pod's annotation ---


@pytest.mark.parametrize(
    ("text", "wished"),
    [
        pytest.param("", False, id="none"),
        pytest.param('tradingbot.dev/safe-mode="true"', True, id="true"),
        pytest.param('a="b"\ntradingbot.dev/safe-mode="on"\nz="y"\n', True, id="among-others"),
        pytest.param('tradingbot.dev/safe-mode="alarm at \\"desk\\" 7\\n"', True, id="escaped"),
        pytest.param('tradingbot.dev/safe-mode="False"', True, id="any-other-word"),
        pytest.param('tradingbot.dev/safe-mode="false"', False, id="false"),
        pytest.param('tradingbot.dev/safe-mode=""', False, id="empty"),
        pytest.param('tradingbot.dev/safe-mode-note="true"', False, id="another-key"),
        pytest.param('note="x\\ntradingbot.dev/safe-mode=\\"true\\""', False, id="inside-a-value"),
    ],
)
def test_any_value_but_false_and_nothing_is_a_wish_for_safe_mode(text: str, wished: bool) -> None:
    assert safe_mode_wished(text.encode()) is wished


def swap(directory: Path, generation: str, text: str | None) -> None:
    """What the kubelet does: a new folder, and a symbolic link that is replaced in one step."""
    (directory / generation).mkdir()
    if text is not None:
        (directory / generation / "annotations").write_text(text)
    (directory / "next").symlink_to(generation)
    os.replace(directory / "next", directory / "..data")
    if not (directory / "annotations").is_symlink():
        (directory / "annotations").symlink_to("..data/annotations")


def test_the_annotations_are_read_again_when_the_kubelet_swaps_them(tmp_path: Path) -> None:
    pod = PodAnnotations(tmp_path)
    assert not pod.safe_mode_wished()
    for generation, text, wished in (
        ("..1", 'a="b"', False),
        ("..2", 'a="b"\ntradingbot.dev/safe-mode="true"', True),
        ("..3", 'tradingbot.dev/safe-mode="fals"', True),
        ("..4", 'tradingbot.dev/safe-mode="false"', False),
        ("..5", 'tradingbot.dev/safe-mode="1"', True),
        ("..6", None, False),
    ):
        swap(tmp_path, generation, text)
        assert pod.safe_mode_wished() is wished, generation
        assert pod.safe_mode_wished() is wished, generation


def test_an_annotation_that_cannot_be_read_leaves_the_last_answer_and_one_that_stands_is_read_once(
    tmp_path: Path,
) -> None:
    folder, file = tmp_path / "info", tmp_path / "info/annotations"
    pod = PodAnnotations(folder)
    folder.write_text("no folder")
    assert pod.safe_mode_wished() is False
    folder.unlink()
    folder.mkdir()
    file.write_text('tradingbot.dev/safe-mode="true "')
    assert pod.safe_mode_wished() is True
    before = file.stat()
    file.write_text('tradingbot.dev/safe-mode="false"')
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pod.safe_mode_wished() is True, "the kubelet puts another file in its place"
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert pod.safe_mode_wished() is False
    file.write_text('tradingbot.dev/safe-mode="true"')
    assert pod.safe_mode_wished() is True
    file.unlink()
    folder.rmdir()
    folder.write_text("no folder")
    assert pod.safe_mode_wished() is True


# --- a bot's desk ---


def settings(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "exchange": {"environment": "Testnet", "credentialsSecretRef": {"name": "keys"}},
        "strategy": {"name": "ema-cross", "interval": "1m", "parameters": {"fast": 12, "slow": 26}},
        "capital": "1000",
        "protection": {"stopLossRatio": "0.05", "takeProfitRatio": "0.05"},
        "risk": {"maxPositionValue": "500", "maxDailyLoss": "50"},
    }
    return {**spec, **changes}


def config(
    revision: int,
    *,
    uid: str = "u-1",
    cleared: tuple[str, ...] = (),
    epoch: int = 0,
    imposed: tuple[ImposedCause, ...] = (),
    **changes: Any,
) -> bytes:
    """A configuration as the operator sends it; with `imposed` causes as it is encoded for all versions."""
    body = {
        "revision": revision,
        "bot": {"namespace": "test", "name": "btcusdt", "uid": uid},
        "settings": settings(**changes),
        "clearedCauses": cleared,
        "epoch": epoch,
    }
    if imposed:
        body |= {
            "imposed": [cause.model_dump(mode="json") for cause in imposed],
            "settingsSafeMode": None,
            "settings": settings(**{**changes, "safeMode": True}),
        }
    return json.dumps(body).encode()


def switch(name: str = "all", level: str = "NoNewEntries") -> ImposedCause:
    """What a kill switch imposes."""
    return ImposedCause(
        id=f"kill-switch/{name}", source="KillSwitch", reason="KillSwitch", level=level, message="exchange incident",
        clears="release it",
    )  # fmt: skip


@dataclass
class Bot:
    """A process without its connections: desk, control port, store."""

    desk: Desk
    control: Control
    store: Store

    @classmethod
    async def start(cls, store: Store, file: bytes) -> Bot:
        """Start with what the operator mounted."""
        received = parse_pod_config(file, "config.json")
        desk = Desk(received.config, operated=True)
        stored = Applied.from_json(await store.get(CONFIG_FACT))
        await desk.take_over(store, choose_at_start(received.config, stored, received.unknown))
        desk.refresh()
        return cls(desk, Control(desk, StatusFeed(_no_status, lambda _: 0, desk.monotonic)), store)

    async def put(self, body: bytes) -> str:
        """The code of the answer."""
        try:
            await self.control.put_config(body)
        except ControlError as error:
            return error.code
        finally:
            await self.desk.save()  # as the bot does each half second
        return "OK"

    @property
    def causes(self) -> set[str]:
        """All but the grant, which these bots do not have."""
        self.desk.refresh()
        return {cause.id for cause in self.desk.safe_mode.causes} - {"awaiting-grant"}


def _no_status(_sequence: int) -> BotStatus:
    raise AssertionError("nobody listens")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "bot.db")
    yield opened
    await opened.close()


async def test_an_annotation_is_latched_over_its_removal_and_a_restart_until_a_human_clears_it(store: Store) -> None:
    bot = await Bot.start(store, config(1))
    bot.desk.pod_wish = True
    assert bot.causes == {"annotation"}
    assert bot.desk.safe_mode.causes[-1].clears == ANNOTATION_STANDS
    await bot.desk.save()
    bot.desk.pod_wish = False
    assert bot.causes == {"annotation"}
    assert {cause.clears for cause in bot.desk.safe_mode.causes} >= {ANNOTATION.clears}
    again = await Bot.start(store, config(1))
    assert again.causes == {"annotation"}
    assert await again.put(config(2, cleared=("annotation",))) == "OK"
    assert again.causes == set()
    assert (await Bot.start(store, config(2, cleared=("annotation",)))).causes == set()


async def test_a_latched_cause_is_acknowledged_only_once_a_restart_would_find_it(store: Store) -> None:
    bot = await Bot.start(store, config(1))
    await bot.desk.save()
    assert bot.desk.latches_kept
    bot.desk.pod_wish = True
    assert bot.causes == {"annotation"}
    assert not bot.desk.latches_kept
    await bot.desk.save()
    bot.desk.pod_wish = False
    assert bot.causes == {"annotation"}
    assert bot.desk.latches_kept, "the words about what ends it may change"
    assert (await Bot.start(store, config(1))).desk.latches_kept


async def test_clearing_has_no_effect_while_the_annotation_stands(store: Store) -> None:
    bot = await Bot.start(store, config(1))
    bot.desk.pod_wish = True
    assert await bot.put(config(2, cleared=("annotation",))) == "OK"
    assert bot.causes == {"annotation"}
    assert (await Bot.start(store, config(2))).causes == {"annotation"}
    bot.desk.pod_wish = False
    assert await bot.put(config(3)) == "OK"
    assert bot.causes == {"annotation"}
    assert await bot.put(config(4, cleared=("annotation",))) == "OK"
    assert bot.causes == set()


WISHES: dict[str, dict[str, Any]] = {"spec": {"safeMode": True}, "kill-switch/all": {"imposed": (switch(),)}}
TIGHTENING = [
    pytest.param(cause, config(revision, epoch=epoch, **{**wish, **changes}), code, id=f"{cause}-{name}")
    for cause, wish in WISHES.items()
    for name, revision, epoch, code, changes in (
        ("former-leader", 5, 6, EPOCH_PAST, {}),
        ("no-leader", 6, EPOCH_NOT_LEADER, EPOCH_PAST, {}),
        ("stale-revision", 3, 7, STALE_REVISION, {}),
        ("other-content-of-that-revision", 5, 7, STALE_REVISION, {}),
        ("invalid-field", 6, 7, "Invalid", {"capital": "x"}),
        ("unknown-field", 6, 7, Reason.CONFIG_INVALID, {"hedge": {}}),
        ("refused", 6, 7, "UnknownStrategy", {"strategy": {"name": "nope", "interval": "1m"}}),
    )
]


@pytest.mark.parametrize(("cause", "tightening", "code"), TIGHTENING)
async def test_a_tightening_is_always_taken_and_only_a_greater_revision_releases_it(
    store: Store, cause: str, tightening: bytes, code: str
) -> None:
    bot = await Bot.start(store, config(5, epoch=7))
    assert bot.causes == set()
    assert await bot.put(tightening) == code
    assert bot.causes == {cause}
    # The leader repeats what it said before: no word on what came since.
    assert await bot.put(config(5, epoch=7)) == "OK"
    assert bot.causes == {cause}
    # A release by somebody who may not.
    assert await bot.put(config(9, epoch=6)) == EPOCH_PAST
    assert await bot.put(config(9, epoch=EPOCH_NOT_LEADER)) == EPOCH_PAST
    assert bot.causes == {cause}
    again = await Bot.start(store, config(5, epoch=7))
    assert again.causes == {cause}
    assert await again.put(config(7, epoch=7)) == "OK"
    assert again.causes == set()
    assert (await Bot.start(store, config(7, epoch=7))).causes == set()


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(config(6, epoch=8, hedge={}), id="unknown-field"),
        pytest.param(config(6, epoch=8, strategy={"name": "nope", "interval": "1m"}), id="refused"),
        pytest.param(config(5, epoch=8, capital="900"), id="stale"),
    ],
)
async def test_a_new_leader_whose_first_configuration_is_refused_is_heard_all_the_same(
    store: Store, refused: bytes
) -> None:
    bot = await Bot.start(store, config(5, epoch=7))
    assert await bot.put(refused) != "OK"
    assert await bot.put(config(9, epoch=7)) == EPOCH_PAST
    assert await bot.put(config(7, epoch=8, safeMode=True)) == "OK"
    assert bot.causes == {"spec"}
    assert await bot.put(config(8, epoch=8)) == "OK"
    assert bot.causes == set()


@pytest.mark.parametrize(("cause", "tightening", "code"), TIGHTENING)
async def test_a_tightening_is_on_the_disk_before_it_is_answered(
    store: Store, cause: str, tightening: bytes, code: str
) -> None:
    bot = await Bot.start(store, config(5, epoch=7))
    with pytest.raises(ControlError) as refused:
        await bot.control.put_config(tightening)
    assert refused.value.code == code
    assert (await Bot.start(store, config(5, epoch=7))).causes == {cause}


async def test_the_strictest_of_spec_and_imposed_causes_is_in_force_and_each_ends_by_itself(store: Store) -> None:
    bot = await Bot.start(store, config(1, imposed=(switch(),)))
    assert bot.causes == {"kill-switch/all"}
    (cause,) = (one for one in bot.desk.safe_mode.get_safe_mode_status(True).causes if one.source == "KillSwitch")
    assert (cause.reason, cause.level, cause.message) == ("KillSwitch", "NoNewEntries", "exchange incident")
    assert await bot.put(config(2, imposed=(switch(), switch("b", "ReduceOnly")))) == "OK"
    assert (bot.causes, bot.desk.safe_mode.level) == ({"kill-switch/all", "kill-switch/b"}, Level.REDUCE_ONLY)
    assert await bot.put(config(3, imposed=(switch(), switch("b", "NoNewEntries")))) == "OK"
    assert (bot.causes, bot.desk.safe_mode.level) == ({"kill-switch/all", "kill-switch/b"}, Level.NO_NEW_ENTRIES)
    assert await bot.put(config(4, safeMode=True, safeModePolicy="ClosePosition")) == "OK"
    assert (bot.causes, bot.desk.safe_mode.level) == ({"spec"}, Level.REDUCE_ONLY)
    assert await bot.put(config(5, safeMode=True)) == "OK"
    assert (bot.causes, bot.desk.safe_mode.level) == ({"spec"}, Level.NO_NEW_ENTRIES)
    assert await bot.put(config(6)) == "OK"
    assert bot.causes == set()


async def test_a_level_that_this_version_does_not_know_forbids_entries_and_sells_nothing(store: Store) -> None:
    bot = await Bot.start(store, config(1, imposed=(switch(level="SomethingNew"),)))
    assert (bot.causes, bot.desk.safe_mode.level) == ({"kill-switch/all"}, Level.NO_NEW_ENTRIES)


async def test_a_looser_limit_does_not_get_in_force_by_an_imposed_cause(store: Store) -> None:
    bot = await Bot.start(store, config(1))
    assert await bot.put(config(2, imposed=(switch(),))) == "OK"
    assert await bot.put(config(3, imposed=(switch(),), capital="2000")) == "OK"
    assert (bot.desk.settings.capital, bot.desk.applied.loosened) == (1000, ("spec.capital",))
    again = await Bot.start(store, config(3, imposed=(switch(),), capital="2000"))
    assert (again.desk.settings.capital, again.causes) == (1000, {"kill-switch/all"})
    assert await again.put(config(4, safeMode=True, capital="2000")) == "OK"
    assert again.desk.settings.capital == 2000


@pytest.mark.parametrize("safe", [None, False, True])
def test_a_configuration_with_imposed_causes_reads_back_as_it_was_and_asks_an_older_bot_for_safe_mode(
    safe: bool | None,
) -> None:
    whole = BotConfig.model_validate_json(config(7, safeMode=safe)).model_copy(update={"imposed": [switch()]})
    sent = json.loads(json.dumps(whole.sparse()))
    assert BotConfig.model_validate(sent) == whole
    assert sent["settings"]["safeMode"] is True
    wish = safe_mode_wish(json.dumps(sent), "u-1")
    assert wish is not None
    assert (wish.spec, wish.imposed) == (bool(safe), (switch(),))


async def test_an_edit_under_way_does_not_release_what_was_asked_for_at_its_revision(store: Store) -> None:
    bot = await Bot.start(store, config(5, epoch=7))
    assert await bot.put(config(6, epoch=EPOCH_NOT_LEADER, safeMode=True)) == EPOCH_PAST
    assert await bot.put(config(6, epoch=7, capital="900")) == "OK"
    assert bot.causes == {"spec"}
    assert await bot.put(config(7, epoch=7, capital="900", safeMode=True)) == "OK"
    assert await bot.put(config(8, epoch=7, capital="900")) == "OK"
    assert bot.causes == set()


async def test_another_bots_tightening_is_not_this_bots(store: Store) -> None:
    bot = await Bot.start(store, config(5))
    assert await bot.put(config(6, uid="u-2", safeMode=True)) == "IdentityMismatch"
    assert bot.causes == set()


async def test_a_tightening_is_taken_before_the_store_is_open(store: Store) -> None:
    received = parse_pod_config(config(5), "config.json")
    desk = Desk(received.config, operated=True)
    control = Control(desk, StatusFeed(_no_status, lambda _: 0, desk.monotonic))
    with pytest.raises(ControlError) as refused:
        await control.put_config(config(4, safeMode=True))
    assert refused.value.status == 503
    assert desk.safe_mode.has("spec")
    await desk.take_over(store, choose_at_start(received.config, None))
    desk.refresh()
    assert desk.safe_mode.has("spec")


async def test_a_new_bot_on_a_retained_volume_does_not_inherit_the_former_ones_wish(store: Store) -> None:
    bot = await Bot.start(store, config(50))
    assert await bot.put(config(49, safeMode=True)) == STALE_REVISION
    assert (await Bot.start(store, config(1, uid="u-2"))).causes == set()


# --- what this version does not know ---


async def test_a_field_that_is_set_and_not_known_is_refused_by_name_and_the_last_good_configuration_stays(
    store: Store,
) -> None:
    bot = await Bot.start(store, config(1))
    body = config(2, hedge={"ratio": "0.5"}, risk={**settings()["risk"], "maxOpenHours": 4})
    with pytest.raises(ControlError) as refused:
        await bot.control.put_config(body)
    assert refused.value.status == 422
    assert {(item.field, item.message) for item in refused.value.fields} == {
        ("spec.hedge", "this bot's version does not know it; update spec.pod.image"),
        ("spec.risk.maxOpenHours", "this bot's version does not know it; update spec.pod.image"),
    }
    assert (bot.desk.revision, bot.desk.usable) == (1, True)
    assert bot.desk.config_problem is not None
    assert "spec.hedge: this bot's version does not know it" in bot.desk.config_problem.message


async def test_a_stricter_level_of_a_cause_in_force_is_told(store: Store) -> None:
    bot = await Bot.start(store, config(1))
    assert bot.causes == set()
    manager = SimpleNamespace(held_back=False, unknown=(), exchange_reset=None, two_traders=None)
    session = SimpleNamespace(manager=manager, differs=False, drifts=0, books_rebuilt=False)
    bot.desk.session = cast(Session, session)
    assert not bot.desk.refresh()
    manager.held_back = True
    assert bot.desk.refresh()
    assert not bot.desk.refresh()


async def test_a_grant_ends_while_the_machine_sleeps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = await Bot.start(store, config(1))
    since_boot, awake = time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic()
    monkeypatch.setattr(
        time, "clock_gettime", lambda clock: since_boot + 3600 if clock == time.CLOCK_BOOTTIME else awake
    )
    assert bot.desk.monotonic() >= since_boot + 3600


@pytest.mark.parametrize("safe", [True, False])
async def test_a_bot_starts_with_the_last_good_configuration_where_its_file_has_an_unknown_field(
    store: Store, safe: bool
) -> None:
    await Bot.start(store, config(1, capital="900"))
    bot = await Bot.start(store, config(2, hedge={}, safeMode=safe))
    assert bot.desk.settings.capital == 900
    assert (bot.desk.revision, bot.desk.usable) == (1, True)
    assert bot.desk.config_problem is not None
    assert bot.desk.config_problem.message.startswith("spec.hedge: ")
    assert bot.causes == ({"spec"} if safe else set())
    # A correct one heals it.
    assert await bot.put(config(3, capital="900")) == "OK"
    assert bot.desk.config_problem is None


async def test_a_bot_without_a_store_starts_engaged_and_unusable_where_its_file_has_an_unknown_field(
    store: Store,
) -> None:
    bot = await Bot.start(store, config(1, hedge={}))
    assert (bot.desk.revision, bot.desk.usable) == (0, False)
    assert not bot.desk.safe_mode.should_allow_trading()
    assert bot.desk.config_problem is not None
    assert bot.desk.config_problem.reason is Reason.CONFIG_INVALID
    assert (await Bot.start(store, config(1, hedge={}))).desk.revision == 0  # it was not taken for a good one


async def test_a_drawdown_is_cleared_once_by_its_revision(store: Store) -> None:
    bot = await Bot.start(store, config(1))
    bot.desk.safe_mode.activate(DRAWDOWN, since=NOW)
    assert await bot.put(config(2, cleared=("drawdown", "spec"))) == "OK"
    assert bot.causes == set()
    bot.desk.safe_mode.activate(DRAWDOWN, since=NOW)
    assert await bot.put(config(2, cleared=("drawdown", "spec"))) == "OK"
    assert bot.causes == {"drawdown"}
