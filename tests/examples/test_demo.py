"""The demo on recordings of one's own: from the images' weights to an ONNX file that answers."""

import re
from pathlib import Path

import numpy as np
import pytest

from fastloaa.export import Classifier
from helpers.tone_set import PITCHES, write_tones


def test_three_methods_and_a_file_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    import demo

    tones = write_tones(tmp_path / "tones")
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", f"demo --data {tones} --out {out} --epochs 3 --seeds 2".split())
    demo.main()
    said = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines()]
    rows = {row[0]: row for row in cells if row}
    assert list(rows) == ["probe", "parallel", "loaa"]
    head = 2 * 192 + 192 * 3 + 3
    adapters = 6 * 2 * 2 * 108 * 192
    assert [row[2] for row in rows.values()] == [f"{head:,}", *2 * [f"{head + adapters:,}"]]
    assert all(re.fullmatch(r"\d+\.\d ± \d+\.\d", row[1]) for row in rows.values())
    assert len(re.findall(r"loaa against \w+, seed by seed: [+-]", said)) == 2
    (bundle,) = out.glob("*/loaa/seed0/tones")
    assert (bundle.parent / "answers.png").stat().st_size > 0
    assert (bundle / "web" / "index.html").is_file()
    assert re.search(r"^listen .*(http://localhost:8000/web/|npm|Node\.js)", said, re.MULTILINE)
    model = bundle / "model.onnx"
    classifier = Classifier(model)
    answers = list(classifier.classify([tones / f"{pitch}Hz" / "0.wav" for pitch in PITCHES]))
    right = np.mean([answer.labels[0] == f"{pitch}Hz" for answer, pitch in zip(answers, PITCHES, strict=True)])
    assert right > 0.5
