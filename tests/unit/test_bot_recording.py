"""Recorded candles are read exactly, and a file that is wrong is told by line and field."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import pytest

from support.recordings import MINUTE_MS, START_MS, binance_rows, random_recording, write_archive
from tradingbot.lab.recording import Recording, RecordingError, read_recordings
from tradingbot_api.v1alpha1 import Interval

COLUMNS = ("open_ms", "open", "high", "low", "close", "volume", "trades", "taker_base")


def columns(recording: Recording) -> list[list[int]]:
    return [list(getattr(recording, name)) for name in COLUMNS]


def test_a_file_of_binance_is_read_to_the_last_decimal_plain_or_packed(tmp_path: Path) -> None:
    recording = random_recording(1, 50)
    plain = write_archive(recording, tmp_path)
    zipped, gzipped = tmp_path / "BTCUSDT-1m-2025-01-06.zip", tmp_path / "BTCUSDT_1m_x.csv.gz"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(plain, plain.name)
    gzipped.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, zipped, gzipped):
        read = read_recordings([path])
        assert list(read) == ["BTCUSDT"]
        assert columns(read["BTCUSDT"]) == columns(recording)
    assert read["BTCUSDT"].interval is Interval.M1


def test_microseconds_and_iso_times_are_the_same_as_milliseconds(tmp_path: Path) -> None:
    recording = random_recording(1, 5)
    micro = tmp_path / "BTCUSDT-1m-micro.csv"
    lines = [line.split(",") for line in binance_rows(recording).splitlines()]
    micro.write_text("\n".join(",".join([line[0] + "000", *line[1:6], line[6] + "999", *line[7:]]) for line in lines))
    iso = tmp_path / "BTCUSDT_1m_iso.csv"
    rows = [f"2025-01-06 00:0{at}:00+00:00,{','.join(line[1:5])},9e-05" for at, line in enumerate(lines)]
    iso.write_text("\n".join(["open_time,open,high,low,close,volume", *rows]))
    assert columns(read_recordings([micro])["BTCUSDT"]) == columns(recording)
    told = read_recordings([iso])["BTCUSDT"]
    assert columns(told)[:5] == columns(recording)[:5]
    assert list(told.volume) == [9_000] * 5
    assert list(told.trades) == [-1] * 5


def test_the_files_of_a_folder_are_joined_by_symbol_in_the_order_of_their_time(tmp_path: Path) -> None:
    whole = binance_rows(random_recording(1, 60)).splitlines()
    for name, part in (("BTCUSDT-1m-b.csv", whole[:30]), ("BTCUSDT-1m-a.csv", whole[30:]), ("ETHUSDT-1m-a.csv", whole)):
        (tmp_path / name).write_text("\n".join(part))
    (tmp_path / "notes.txt").write_text("no candles")
    read = read_recordings([tmp_path])
    assert {name: len(one) for name, one in read.items()} == {"BTCUSDT": 60, "ETHUSDT": 60}
    assert read["BTCUSDT"].missing == 0
    (tmp_path / "BTCUSDT-1m-c.csv").write_text("\n".join(whole[20:40]))
    with pytest.raises(RecordingError, match=r"BTCUSDT-1m-c\.csv: open_time: begins at .* before .*-b\.csv ends"):
        read_recordings([tmp_path])


def _changed(line: int, field: int, value: str) -> str:
    lines = [row.split(",") for row in binance_rows(random_recording(1, 5)).splitlines()]
    lines[line - 1][field] = value
    return "\n".join(",".join(row) for row in lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(_changed(2, 4, "x"), r":2: close: expected a number of at most 8 decimals, got 'x'", id="number"),
        pytest.param(_changed(3, 1, "1.123456789"), r":3: open: expected a number", id="decimals"),
        pytest.param(_changed(3, 1, "NaN"), r":3: open: expected a number", id="nan"),
        pytest.param(_changed(3, 2, "1"), r":3: high: expected the highest price, got '1'", id="high"),
        pytest.param(_changed(3, 3, "999999"), r":3: low: expected the lowest price", id="low"),
        pytest.param(_changed(3, 3, "0"), r":3: low: expected the lowest price, above 0", id="zero"),
        pytest.param(_changed(3, 5, "-1"), r":3: volume: expected no negative number", id="volume"),
        pytest.param(_changed(3, 9, "9999999"), r":3: taker_base: expected a part of the volume", id="taker"),
        pytest.param(_changed(2, 0, "yesterday"), r":2: open_time: expected a time such as", id="time"),
        pytest.param(_changed(3, 0, str(START_MS)), r":3: open_time: expected whole", id="again"),
        pytest.param(_changed(2, 0, str(START_MS + 90_000)), r"open_time: expected", id="between"),
        pytest.param("1,2\n3,4", r":1: expected 12 fields, got 2", id="fields"),
        pytest.param("time,open\n1,2", r":1: expected the columns open_time,open,.*lacks open_time, high", id="header"),
        pytest.param(binance_rows(random_recording(1, 1)), r"expected at least two candles, got 1", id="one"),
        pytest.param("", r"expected at least two candles, got 0", id="empty"),
    ],
)
def test_a_wrong_file_is_told_by_line_and_field(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "BTCUSDT-1m-x.csv"
    path.write_text(text)
    with pytest.raises(RecordingError, match=told):
        read_recordings([path])


def test_what_cannot_be_read_at_all_is_told(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT-1m-x.zip").write_bytes(b"no zip")
    for path, told in (
        (tmp_path / "BTCUSDT-1m-none.csv", "No such file"),
        (tmp_path / "BTCUSDT-1m-x.zip", "not a zip file"),
        (tmp_path / "prices.csv", "expected a name that begins with symbol and interval"),
    ):
        with pytest.raises(RecordingError, match=told):
            read_recordings([path])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RecordingError, match="found none"):
        read_recordings([empty])


def test_the_shared_candles_of_three_weeks_are_whole() -> None:
    folder = os.environ.get("TRADINGBOT_TEST_DATA")
    if folder is None:
        pytest.skip("TRADINGBOT_TEST_DATA does not name the folder with recorded candles")
    read = read_recordings([Path(folder) / "market" / "klines"], wanted={"BTCUSDT"})
    recording = read["BTCUSDT"]
    assert len(recording) == 21 * 1440
    assert recording.missing == 0
    assert recording.width == MINUTE_MS
    assert list(read["BTCUSDC"].open_ms) == [], "of others nothing is read"
