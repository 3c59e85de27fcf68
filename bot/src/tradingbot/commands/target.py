"""Which bot a command is about: where its state, its keys and its configuration are."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path

from tradingbot.app import STORE_FILE, Options
from tradingbot.applied import Applied
from tradingbot.commands.shared import UsageError, home_state, home_states
from tradingbot.config import load_manifest, load_pod_config
from tradingbot.desk import CONFIG_FACT
from tradingbot.state.store import Store, StoreError
from tradingbot_api import names
from tradingbot_api.bot_http import BotConfig

POD_CONFIG = Path(names.CONFIG_DIR) / names.CONFIG_KEY


@dataclass(frozen=True, slots=True)
class Target:
    """A bot; without `config` its store says what it last worked with."""

    state_dir: Path
    credentials_dir: Path | None
    config: BotConfig | None


def add_target(parser: argparse.ArgumentParser) -> None:
    """The options; none is needed in a bot's pod, nor where one bot alone keeps its state in the home directory."""
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the TradingBot manifest that it runs")
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="where its orders and fills are kept (default: as of `run`)"
    )
    parser.add_argument(
        "--credentials-dir",
        type=Path,
        metavar="DIR",
        help="files apiKey and apiSecret or privateKey; needed where no bot runs "
        f"(default in a pod: {names.CREDENTIALS_DIR})",
    )


def find_target(options: argparse.Namespace, pod_config: Path = POD_CONFIG) -> Target:
    """The bot that the options mean. UsageError, ConfigError."""
    if options.file is not None:
        config = load_manifest(options.file)
        return Target(options.state_dir or home_state(config.bot), options.credentials_dir, config)
    if options.state_dir is not None:
        return Target(options.state_dir, options.credentials_dir, None)
    if pod_config.exists():
        received = load_pod_config(pod_config)
        credentials_dir = options.credentials_dir or Path(names.CREDENTIALS_DIR)
        return Target(Path(names.STATE_DIR), credentials_dir, None if received.stand_in else received.config)
    found = sorted(path.parent for path in home_states().glob(f"*/*/{STORE_FILE}"))
    if len(found) != 1:
        seen = f"; there are {', '.join(f'--state-dir {path}' for path in found)}" if found else ""
        raise UsageError(f"expected FILE or --state-dir DIR: this is no bot's pod{seen}")
    return Target(found[0], options.credentials_dir, None)


async def own_options(target: Target, *, flatten: bool = False) -> Options:
    """How this process is that bot, to look or to flatten. UsageError where keys or configuration are not known."""
    if target.credentials_dir is None:
        raise UsageError(
            f"no bot runs on {target.state_dir}, so that the exchange is asked: expected --credentials-dir DIR with "
            "the files apiKey and apiSecret (or privateKey)"
        )
    config = target.config or await _stored_config(target.state_dir / STORE_FILE)
    return Options(
        config=config,
        credentials_dir=target.credentials_dir,
        state_dir=target.state_dir,
        local=True,
        flatten=flatten,
    )


async def _stored_config(path: Path) -> BotConfig:
    try:
        store = await asyncio.to_thread(Store.snapshot, path)
    except StoreError as error:
        raise UsageError(f"--state-dir: no bot runs there, and {error}") from error
    try:
        applied = Applied.from_json(await store.get(CONFIG_FACT))
    finally:
        await store.close()
    if applied is None:
        raise UsageError(f"--state-dir: no bot runs there, and {path} names none: expected FILE, its manifest")
    return applied.committed
