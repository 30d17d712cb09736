"""Warnings as the command line shows them."""

import warnings

import pytest

from fastloaa.audio import AudioWarning
from fastloaa.cli.notes import one_line_notes


def test_a_note_is_one_line_and_other_warnings_stay(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: print(f"as before: {message}")
        one_line_notes()
        warnings.warn("a.wav: the header was never finished", AudioWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert capsys.readouterr() == ("as before: something else\n", "note: a.wav: the header was never finished\n")
