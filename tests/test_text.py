"""Names as text: what any UTF-8 stream takes, on one line."""

import os

import pytest

from fastloaa.errors import ArgumentError
from fastloaa.text import encodable, printable

NAMES = [
    (b"clip.wav", "clip.wav"),
    ("録音 🎉 café.wav".encode(), "録音 🎉 café.wav"),
    (b"caf\xe9.wav", r"caf\xe9.wav"),  # Latin-1
    ("café.wav".encode("cp850"), r"caf\x82.wav"),  # old zips
    ("猫.wav".encode("shift_jis"), r"\x94L.wav"),
    ("犬.wav".encode("euc_jp"), r"\xb8\xa4.wav"),
    ("кот.wav".encode("koi8_r"), r"\xcb\xcf\xd4.wav"),
    (b"\xff\xfe", r"\xff\xfe"),
    ("é.wav".encode()[:1] + b".wav", r"\xc3.wav"),  # half a character
    (b"a\nb\tc\x1b[31m.wav", r"a\nb\tc\x1b[31m.wav"),
    ("a\x85b\u2028c".encode(), r"a\x85b\u2028c"),
]


@pytest.mark.parametrize(("name", "shown"), NAMES)
def test_any_file_name_is_shown_on_one_line(name: bytes, shown: str) -> None:
    assert printable(os.fsdecode(name)) == shown
    assert len(shown.splitlines()) == 1


def test_other_halves_of_characters_are_shown_too() -> None:
    assert encodable("\ud83d and \udc00") == r"\ud83d and \udc00"


def test_what_can_be_encoded_stays() -> None:
    text = "two\nlines, 録音\t👩‍👩‍👧"
    assert encodable(text) is text


def test_an_error_can_be_printed_whatever_file_it_names() -> None:
    error = ArgumentError(f"{os.fsdecode(b'caf%c.wav' % 0xE9)}: no sound")
    assert str(error).encode() == rb"caf\xe9.wav: no sound"
