"""What the paper says of a recipe."""

import pytest

from fastloaa.methods import OptionError
from fastloaa.training.paper import PaperRow


def test_figures_in_words_leave_out_what_is_not_reported() -> None:
    assert PaperRow(figures={"Top-1": "53.90", "mAP": None}).figures_text() == "Top-1 53.90"
    assert PaperRow(figures={"Top-1": "54.11", "mAP": "0.240"}).figures_text() == "Top-1 54.11, mAP 0.240"
    assert PaperRow.read({}).figures_text() == ""


def test_refusals() -> None:
    with pytest.raises(OptionError, match="unknown paper option 'figure'; did you mean 'figures'"):
        PaperRow.read({"figure": {}})
    with pytest.raises(OptionError, match="rows is a list, each text, got 'Table 2'"):
        PaperRow.read({"rows": "Table 2"})
