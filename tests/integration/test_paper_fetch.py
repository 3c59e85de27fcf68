"""Fetching archives by name: from a server like Binance's, checked, gone on with, and played afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import io
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from paper_exchange.__main__ import main
from paper_exchange.market import open_market
from paper_exchange.market.events import MarketTrade
from support.paper import START_MS

pytestmark = pytest.mark.integration

DAY_MS = 1_723_075_200_000  # 2024-08-08
DAYS = ("2024-08-08", "2024-08-09")


class Vision:
    """data.binance.vision with some archives; a file's answers can be cut off after some bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.sums: dict[str, str] = {}
        self.cut: dict[str, int] = {}
        self.asked: list[tuple[str, str | None]] = []

    def put(self, path: str, rows: str) -> None:
        """An archive with its checksum."""
        name = path.rpartition("/")[2]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(name.replace(".zip", ".csv"), rows)
        self.files[path] = packed.getvalue()
        self.sums[path] = hashlib.sha256(packed.getvalue()).hexdigest()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.endswith(".CHECKSUM") and path.removesuffix(".CHECKSUM") in self.sums:
            path = path.removesuffix(".CHECKSUM")
            return web.Response(text=f"{self.sums[path]}  {path.rpartition('/')[2]}\n")
        if path not in self.files:
            raise web.HTTPNotFound
        asked = request.headers.get("Range")
        self.asked.append((path.rpartition("/")[2], asked))
        first = request.http_range.start or 0
        body = self.files[path][first:]
        if not body:
            raise web.HTTPRequestRangeNotSatisfiable
        answer = web.StreamResponse(status=206 if asked else 200, headers={"Content-Length": str(len(body))})
        await answer.prepare(request)
        await answer.write(body[: self.cut.pop(path, len(body))])
        if request.transport is not None:
            request.transport.close()
        return answer


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[Vision, str]]:
    vision = Vision()
    application = web.Application()
    application.router.add_get("/{path:.*}", vision.handle)
    async with TestServer(application) as server:
        yield vision, str(server.make_url("")).rstrip("/")


def path_of(day: str) -> str:
    return f"/data/spot/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-{day}.zip"


def put_days(vision: Vision) -> None:
    for number, day in enumerate(DAYS):
        ms = DAY_MS + number * 86_400_000 + 30_000
        vision.put(path_of(day), "".join(f"1,6000{number}.0,0.5,7,9,{ms + row},False,True\n" for row in range(100)))


async def fetch(url: str, directory: Path, *more: str, days: tuple[str, str] = DAYS) -> int:
    arguments = ["fetch", "BTCUSDT", "--from", days[0], "--to", days[1], "--dir", str(directory), "--base-url", url]
    return await asyncio.to_thread(main, [*arguments, *more])


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_days_are_fetched_by_name_played_and_kept(
    served: tuple[Vision, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vision, url = served
    put_days(vision)
    assert await fetch(url, tmp_path / "archives") == 0
    names = [f"BTCUSDT-aggTrades-{day}.zip" for day in DAYS]
    assert names_in(tmp_path / "archives") == names
    assert capsys.readouterr().err == "".join(f"{name}: got\n" for name in names)
    market = open_market(f"archive:{tmp_path / 'archives'}", ("BTCUSDT",), 1, START_MS)
    assert sum(isinstance(event, MarketTrade) for event in market.events()) == 200
    assert await fetch(url, tmp_path / "archives") == 0
    assert capsys.readouterr().err == "".join(f"{name}: kept\n" for name in names)
    assert [name for name, _ in vision.asked] == names


async def test_who_looks_sees_a_bar(
    served: tuple[Vision, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vision, url = served
    put_days(vision)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert await fetch(url, tmp_path, days=(DAYS[0], DAYS[0])) == 0
    assert f"zip [{'#' * 30}] 100% of 0.0 MiB" in capsys.readouterr().err


async def test_candles_lie_under_their_interval(served: tuple[Vision, str], tmp_path: Path) -> None:
    vision, url = served
    vision.put("/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-08-08.zip", "")
    assert await fetch(url, tmp_path, "--kind", "1m", days=(DAYS[0], DAYS[0])) == 0
    assert (tmp_path / "BTCUSDT-1m-2024-08-08.zip").exists()


async def test_what_was_cut_off_goes_on_from_there(
    served: tuple[Vision, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vision, url = served
    put_days(vision)
    vision.cut[path_of(DAYS[0])] = 1000
    assert await fetch(url, tmp_path, days=(DAYS[0], DAYS[0])) == 1
    assert "cut off after 1000" in capsys.readouterr().err
    assert names_in(tmp_path) == [f"BTCUSDT-aggTrades-{DAYS[0]}.zip.part"]
    assert await fetch(url, tmp_path, days=(DAYS[0], DAYS[0])) == 0
    assert [asked for _, asked in vision.asked] == [None, "bytes=1000-"]
    assert (tmp_path / f"BTCUSDT-aggTrades-{DAYS[0]}.zip").read_bytes() == vision.files[path_of(DAYS[0])]
    assert names_in(tmp_path) == [f"BTCUSDT-aggTrades-{DAYS[0]}.zip"]


async def test_a_part_of_another_version_is_fetched_anew(served: tuple[Vision, str], tmp_path: Path) -> None:
    vision, url = served
    put_days(vision)
    whole = len(vision.files[path_of(DAYS[0])])
    for length in (500, whole):
        (tmp_path / f"BTCUSDT-aggTrades-{DAYS[0]}.zip.part").write_bytes(b"x" * length)
        assert await fetch(url, tmp_path, days=(DAYS[0], DAYS[0])) == 0
        target = tmp_path / f"BTCUSDT-aggTrades-{DAYS[0]}.zip"
        assert target.read_bytes() == vision.files[path_of(DAYS[0])]
        target.unlink()


async def test_a_file_with_another_checksum_is_no_archive(
    served: tuple[Vision, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vision, url = served
    put_days(vision)
    vision.sums[path_of(DAYS[0])] = "0" * 64
    assert await fetch(url, tmp_path) == 1
    assert "expected the SHA-256 000" in capsys.readouterr().err
    assert names_in(tmp_path) == []


async def test_errors_tell_the_next_step(
    served: tuple[Vision, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, url = served
    assert await fetch(url, tmp_path) == 1
    assert "not found; expected a symbol of Binance and a day before today" in capsys.readouterr().err
    assert await fetch("http://127.0.0.1:1", tmp_path) == 1
    assert "cannot be reached" in capsys.readouterr().err
    for wrong in (("--kind", "2m"), ("--to", "2024-08-07"), ("--base-url", "ftp://x")):
        with pytest.raises(SystemExit):
            await fetch(url, tmp_path, *wrong)
        assert f"argument {wrong[0]}: expected" in capsys.readouterr().err
