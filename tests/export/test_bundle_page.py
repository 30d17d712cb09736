"""The bundle's page in a browser: it answers as the session does, says what is wrong, and asks no other address."""

import base64
import functools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import soundfile

from fastloaa.errors import FastloaaError
from fastloaa.export import write_bundle
from fastloaa.export.bundle.browser import put_onnxruntime_web
from fastloaa.files import FileError
from helpers.bundles import LABELS, onnxruntime_web, program
from helpers.sounds import encoded, noise

WINDOW, HOP = 10480, 5240


class Files(SimpleHTTPRequestHandler):
    """`python -m http.server`, without its log."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def complete(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with onnxruntime-web."""
    copy = tmp_path_factory.mktemp("page") / "complete"
    shutil.copytree(bundle, copy, symlinks=True)
    put_onnxruntime_web(onnxruntime_web(), copy / "web" / "onnxruntime")
    return copy


@pytest.fixture(scope="module")
def address(complete: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(complete))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or another one; its microphone is a tone."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install it")
    path = program("chromium", "chromium-browser", "google-chrome")
    arguments = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=arguments)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, ready; whatever it asks for is written down in `page.asked`."""
    opened = browser.new_page()
    opened.asked = []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto(f"{address}/web/")
    opened.get_by_text("Ready.").wait_for()
    yield opened
    opened.close()


def session_says(bundle: Path, waveform: np.ndarray) -> dict[str, float]:
    """The mean of the windows' probabilities, by onnxruntime in Python."""
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    starts = [0]
    while starts[-1] + WINDOW < len(waveform):
        starts.append(min(starts[-1] + HOP, len(waveform) - WINDOW))
    windows = [waveform[None, start : start + WINDOW].astype(np.float32) for start in starts]
    answers = [session.run(["probabilities"], {"waveform": window})[0][0] for window in windows]
    return dict(zip(LABELS, np.mean(answers, axis=0, dtype=np.float64), strict=True))


def page_says(page: Any) -> dict[str, float]:
    """The table's first numbers, not rounded."""
    rows = page.get_by_role("table").get_by_role("row").all()[1:]
    return {row.locator("th").text_content(): float(row.locator("data").first.get_attribute("value")) for row in rows}


def recording(samples: int) -> np.ndarray:
    """Noise that grows, in two channels, `[samples, 2]`."""
    return noise(samples, channels=2, seed=samples) * np.linspace(0, 1, samples)[:, None]


@pytest.mark.parametrize("samples", [6000, WINDOW, 3 * WINDOW + 7])
def test_answers_as_the_session_does(page: Any, complete: Path, tmp_path: Path, samples: int) -> None:
    sound = recording(samples)
    soundfile.write(tmp_path / "sound.wav", sound, 16000, subtype="FLOAT")
    page.get_by_label("Choose a sound file").set_input_files(tmp_path / "sound.wav")
    page.get_by_text("Done").wait_for()
    expected = session_says(complete, sound.astype(np.float32).mean(axis=1))
    assert page_says(page) == pytest.approx(expected, abs=1e-4)
    best = max(expected, key=expected.__getitem__)
    assert page.get_by_role("heading", level=2).text_content() == best
    assert page.get_by_role("article").get_by_text("sound.wav").is_visible()


def test_resamples(page: Any, complete: Path, tmp_path: Path) -> None:
    """The browser's resampler is another one: below its cutoff it hears the same."""
    time = np.arange(48000) / 48000
    tones = 0.2 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * 3000 * time)
    soundfile.write(tmp_path / "tones.wav", tones, 48000, subtype="FLOAT")
    page.get_by_label("Choose a sound file").set_input_files(tmp_path / "tones.wav")
    page.get_by_text("Done").wait_for()
    assert page_says(page) == pytest.approx(session_says(complete, tones[::3]), abs=0.01)


def test_asks_no_other_address(page: Any, address: str, tmp_path: Path) -> None:
    """It does not, and its policy would not let it, nor let a script run that is not a file of its own."""
    soundfile.write(tmp_path / "sound.wav", recording(6000), 16000)
    page.get_by_label("Choose a sound file").set_input_files(tmp_path / "sound.wav")
    page.get_by_text("Done").wait_for()
    assert len(page.asked) > 10
    assert {url.removeprefix("blob:").startswith(f"{address}/") for url in page.asked} == {True}
    other = address.replace("127.0.0.1", "localhost")  # the same server, by another name
    asking = "url => fetch(url, {mode: 'no-cors'}).then(() => 'answered', () => 'refused')"
    assert page.evaluate(asking, f"{address}/model.json") == "answered"
    assert page.evaluate(asking, f"{other}/model.json") == "refused"
    in_a_worker = """url => new Promise(resolve => {
        const asking = `fetch('${url}', {mode: 'no-cors'})`;
        const code = `${asking}.then(() => postMessage('answered'), () => postMessage('refused'))`;
        new Worker(URL.createObjectURL(new Blob([code]))).onmessage = ({data}) => resolve(data);
    })"""
    assert page.evaluate(in_a_worker, f"{other}/model.json") == "refused"
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = true'}))")
    assert page.evaluate("window.ran") is None


def broken_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """And a word of what is wrong with them."""
    soundfile.write(folder / "nan.wav", np.where(np.arange(9000) == 17, np.nan, 0.1), 16000, subtype="FLOAT")
    yield folder / "nan.wav", "not finite"
    soundfile.write(folder / "huge.wav", np.full(9000, 1e30), 16000, subtype="FLOAT")
    yield folder / "huge.wav", "not a number"
    soundfile.write(folder / "short.wav", np.full(399, 0.1), 16000)
    yield folder / "short.wav", "399 samples at 16000 Hz; the model looks at 400 and more"
    soundfile.write(folder / "cut.wav", noise(9000), 16000)
    os.truncate(folder / "cut.wav", 9000)
    yield folder / "cut.wav", "cut short"
    (folder / "text.wav").write_text("not a sound")
    yield folder / "text.wav", "no sound file"
    (folder / "nothing.wav").touch()
    yield folder / "nothing.wav", "empty"


def test_a_broken_file_says_so(page: Any, tmp_path: Path) -> None:
    """And the next one is heard."""
    for path, word in broken_files(tmp_path):
        page.get_by_label("Choose a sound file").set_input_files(path)
        complaint = page.get_by_role("alert").get_by_text(path.name)
        complaint.wait_for()
        assert word in complaint.text_content()
        assert not page.get_by_role("article").is_visible()
    soundfile.write(tmp_path / "sound.wav", recording(6000), 16000)
    page.get_by_label("Choose a sound file").set_input_files(tmp_path / "sound.wav")
    page.get_by_text("Done").wait_for()
    assert not page.get_by_role("alert").is_visible()


def test_with_the_keyboard_alone(page: Any, tmp_path: Path) -> None:
    """Every control is reached in turn, and has a name and a role; the arrows go through the windows."""
    soundfile.write(tmp_path / "sound.wav", recording(3 * WINDOW), 16000)
    page.get_by_label("Choose a sound file").set_input_files(tmp_path / "sound.wav")
    page.get_by_text("Done").wait_for()
    page.evaluate("document.activeElement.blur()")
    reached = [""]
    for _ in range(20):  # the player has several stops of its own
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert [control for control, _ in groupby(reached)][1:6] == ["file", "microphone", "player", "timeline", "save"]
    timeline = page.get_by_role("slider", name="Over time")
    timeline.focus()
    read = [timeline.get_attribute("aria-valuetext")]
    for key in ("ArrowRight", "End", "ArrowLeft", "Home"):
        page.keyboard.press(key)
        read.append(timeline.get_attribute("aria-valuetext"))
    assert [text.split(":", 3)[1].split(" ")[0] for text in read] == ["00.0", "00.3", "01.3", "01.0", "00.0"]
    assert all(sum(label in text for label in LABELS) == 3 for text in read)
    assert page.get_by_role("button", name="Save all windows as CSV").is_visible()
    for name in ("Choose a sound file", "The recording"):
        assert page.get_by_label(name).count() == 1


def test_all_windows_as_a_file(page: Any, complete: Path, tmp_path: Path) -> None:
    sound = recording(2 * WINDOW)
    soundfile.write(tmp_path / "sound.wav", sound, 16000, subtype="FLOAT")
    page.get_by_label("Choose a sound file").set_input_files(tmp_path / "sound.wav")
    page.get_by_text("Done").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save all windows as CSV").click()
    table = np.genfromtxt(download.value.path(), delimiter=",", skip_header=1)
    assert table[:, :2] == pytest.approx(np.array([[0, WINDOW], [HOP, HOP + WINDOW], [WINDOW, 2 * WINDOW]]) / 16000)
    expected = session_says(complete, sound.astype(np.float32).mean(axis=1))
    assert table[:, 2:].mean(axis=0) == pytest.approx(list(expected.values()), abs=1e-4)


def test_dropped_files_are_heard(page: Any) -> None:
    sound = base64.b64encode(encoded(noise(6000), 16000, "WAV")).decode()
    page.evaluate(
        """sound => {
            const bytes = Uint8Array.from(atob(sound), character => character.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], "dropped.wav"));
            document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
        }""",
        sound,
    )
    page.get_by_role("article").get_by_text("dropped.wav").wait_for()
    page.get_by_text("Done").wait_for()


def test_several_labels_or_none(browser: Any, address: str, complete: Path, tmp_path: Path) -> None:
    """Of a model that may name several, all that are probable enough."""
    soundfile.write(tmp_path / "sound.wav", recording(6000), 16000, subtype="FLOAT")
    shares = session_says(complete, recording(6000).astype(np.float32).mean(axis=1))
    ranked = sorted(shares, key=shares.__getitem__, reverse=True)
    about = json.loads((complete / "model.json").read_text())
    for threshold, named in (
        ((shares[ranked[1]] + shares[ranked[2]]) / 2, ", ".join(ranked[:2])),
        (0.999, "Nothing that it knows"),
    ):
        page = browser.new_page()
        told = json.dumps(about | {"multi_label": True, "threshold": threshold})
        page.route("**/model.json", lambda route, _, told=told: route.fulfill(body=told))
        page.goto(f"{address}/web/")
        page.get_by_text("Ready.").wait_for()
        page.get_by_label("Choose a sound file").set_input_files(tmp_path / "sound.wav")
        page.get_by_text("Done").wait_for()
        assert page.get_by_role("heading", level=2).text_content() == named
        page.close()


def test_opened_as_a_file_it_says_what_to_do(browser: Any, complete: Path) -> None:
    page = browser.new_page()
    page.goto((complete / "web" / "index.html").as_uri())
    page.get_by_text("It has to come from a server").wait_for()
    page.close()


def test_the_microphone(page: Any) -> None:
    page.get_by_role("button", name="Use the microphone").click()
    page.get_by_role("article").wait_for()  # a first window is answered for while it listens
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Done").wait_for()
    assert sum(page_says(page).values()) == pytest.approx(1, abs=1e-5)
    page.get_by_role("button", name="Use the microphone").wait_for()


def test_a_microphone_that_stays_on_takes_no_more_memory(bundle: Path) -> None:
    """Four minutes: what was heard is forgotten, and what is asked for then is what came."""
    code = f"""
import {{ Recording }} from "{(bundle / "web" / "audio.js").as_uri()}";
const recording = new Recording();
const piece = new Float32Array(4096);
for (let number = 0; number < 3000; number++) {{
  recording.push(piece.forEach((_, index) => (piece[index] = number * 4096 + index)) ?? piece);
  if (number % 20 < 19) continue;
  const start = recording.length - 50_000;
  recording.forget(start);
  if (number % 500 < 499) continue;
  const [first, ...others] = recording.slice(start + 7, start + 40_007);
  console.log(first === start + 7 && others.every((sample, index) => sample === first + index + 1), others.length);
}}
console.log(recording.length, recording.slice(recording.length - 3, recording.length + 9).length);
console.log(process.memoryUsage().arrayBuffers < 20e6);
"""
    command = [program("node"), "--no-warnings", "--input-type=module", "--eval", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == [*["true 39999"] * 6, "12288000 3", "true"]


def test_stopped_before_it_may_listen(page: Any) -> None:
    """The browser still asks whether it may: no microphone stays on, and the button says so."""
    page.evaluate("""() => {
        const {mediaDevices} = navigator;
        window.streams = [];
        window.allowed = new Promise(resolve => (window.allow = resolve));
        mediaDevices.getUserMedia = async wanted => {
            await window.allowed;
            window.streams.push(await MediaDevices.prototype.getUserMedia.call(mediaDevices, wanted));
            return window.streams.at(-1);
        };
    }""")
    page.get_by_role("button", name="Use the microphone").click()
    page.get_by_role("button", name="Stop").click()
    page.evaluate("window.allow()")
    page.get_by_role("button", name="Use the microphone").wait_for()
    states = "window.streams.flatMap(stream => stream.getTracks()).map(({readyState}) => readyState)"
    assert page.evaluate(states) == ["ended"]
    page.evaluate("delete navigator.mediaDevices.getUserMedia")


def test_a_file_that_another_one_has_taken_the_place_of(page: Any, tmp_path: Path) -> None:
    """Decoded after the other was heard, it does not say that it goes on."""
    page.evaluate("""() => {
        const {decodeAudioData} = BaseAudioContext.prototype;
        window.decoded = new Promise(resolve => (window.decode = resolve));
        OfflineAudioContext.prototype.decodeAudioData = async function (content) {
            delete OfflineAudioContext.prototype.decodeAudioData;
            await window.decoded;
            return decodeAudioData.call(this, content);
        };
    }""")
    for name in ("slow.wav", "quick.wav"):
        soundfile.write(tmp_path / name, recording(6000), 16000)
        page.get_by_label("Choose a sound file").set_input_files(tmp_path / name)
    page.get_by_text("Done").wait_for()
    page.evaluate("window.decode()")
    page.wait_for_timeout(300)
    assert page.get_by_role("status").text_content().startswith("Done")
    assert page.get_by_role("article").get_by_text("quick.wav").is_visible()


def test_without_the_runtime_it_says_what_is_missing(browser: Any, complete: Path, tmp_path: Path) -> None:
    write_bundle(complete / "model.onnx", tmp_path / "bare")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(tmp_path / "bare"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/web/")
        page.get_by_role("alert").get_by_text("onnxruntime-web").wait_for()
        server.shutdown()


def test_node_answers_as_the_session_does(complete: Path) -> None:
    """The README's JavaScript, which is what the page runs."""
    node = program("node")
    waveform = recording(3 * WINDOW + 7).mean(axis=1).astype("<f4")
    run = functools.partial(subprocess.run, [node, "classify.mjs"], cwd=complete, capture_output=True, check=False)
    result = run(input=waveform.tobytes())
    rows = dict(line.split("\t") for line in result.stdout.decode().splitlines())
    expected = session_says(complete, waveform)
    named = sorted(expected, key=expected.__getitem__, reverse=True)[:3]
    assert {label: float(share) for label, share in rows.items()} == pytest.approx(
        {label: expected[label] for label in named}, abs=1e-4
    )
    for bad, complaint in (
        (b"", "The recording "),
        (np.full(300, 0.1, "<f4").tobytes(), "300 samples at 16000 Hz; the model looks at 400 and more"),
        (np.array([np.nan] * 5000, "<f4").tobytes(), "The recording "),
        (np.full(5000, 1e30, "<f4").tobytes(), "The model's answer is not a number"),
        (waveform.tobytes()[:-1], "truncated, the input ends within a sample"),
    ):
        result = run(input=bad)
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr.decode().startswith(f"classify: {complaint}")
        assert len(result.stderr.splitlines()) == 1


def test_only_the_version_that_was_looked_at(complete: Path, tmp_path: Path) -> None:
    """An archive of another content has no place in a bundle, whatever it is called."""
    archive = tmp_path / onnxruntime_web().name
    archive.write_bytes(onnxruntime_web().read_bytes() + b"\0")
    with pytest.raises(FileError, match=r"npm pack onnxruntime-web@"):
        write_bundle(complete / "model.onnx", tmp_path / "b", archive)
    with pytest.raises(FileError, match="no such file"):
        write_bundle(complete / "model.onnx", tmp_path / "b", tmp_path / "nowhere.tgz")
    with pytest.raises(FastloaaError, match="expected the path of a file, got int"):
        write_bundle(complete / "model.onnx", tmp_path / "b", 3)  # type: ignore[arg-type]
    assert not (tmp_path / "b" / "web").exists()
