"""CSV files that describe a data set."""

from pathlib import Path

import pytest

from fastloaa.data import DataError
from fastloaa.data.table import read_table


def test_rows_come_with_their_line_and_without_surrounding_space(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(b'\xef\xbb\xbfpath,split\r\n a.wav , train\r\n"b, c.wav",test,extra\r\n')
    assert list(read_table(table, ("path", "split"))) == [
        (f"{table} line 2", {"path": "a.wav", "split": "train"}),
        (f"{table} line 3", {"path": "b, c.wav", "split": "test"}),
    ]


def test_a_table_without_a_header_has_comments(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text('# made today\n# id, start, mids\n-0R, 420.000, "/m/1,/m/2"\n\nabc, 0.000, /m/1\n')
    assert list(read_table(table, ("id", "mids"), header=("id", "start", "mids"))) == [
        (f"{table} line 3", {"id": "-0R", "start": "420.000", "mids": "/m/1,/m/2"}),
        (f"{table} line 5", {"id": "abc", "start": "0.000", "mids": "/m/1"}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,fold\na,1\n", "{}: missing columns split; found: path, fold; add them to the header"),
        (b"", "{}: missing columns path, split; found: none; add them to the header"),
        (b"path,split\n", "{}: no rows below the header; expected one per clip"),
        (b"path,split\na,train\nb\n", "{} line 3: no split; fill it in or delete the line"),
        (b"path,split\n ,train\n", "{} line 2: no path; fill it in or delete the line"),
        (b"RIFF\xff\xfe\x00\x01", "{}: not a CSV file in UTF-8 ("),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(content)
    with pytest.raises(DataError) as error:
        list(read_table(table, ("path", "split")))
    assert str(error.value).startswith(message.format(table))
    assert "\n" not in str(error.value)
