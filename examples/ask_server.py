"""Serve an exported model and ask it: `python examples/ask_server.py mine.onnx clip.wav more/*.flac`.

The server is a process of its own, as it would be on another machine; `ask` needs nothing but Python. A server that
runs already is asked with `--server http://127.0.0.1:8000`, and without a model.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen


def ask(server: str, sound: Path, **question: object) -> dict[str, Any]:
    """What is heard in a sound file; `{"error": "one line"}` where it cannot be answered.

    Args:
        server: its address, `http://127.0.0.1:8000`.
        question: of `POST /predict`: model, top, threshold, hop, pool, timeline.
    """
    headers = {"Content-Type": "application/octet-stream"}
    request = Request(f"{server}/predict?{urlencode(question)}", sound.read_bytes(), headers)
    try:
        with urlopen(request, timeout=60) as response:
            return json.load(response)
    except HTTPError as refused:  # 4xx: the request is at fault; 503: try again later
        return json.load(refused)


@contextmanager
def served(model: Path) -> Iterator[str]:
    """A server of one model on a free port of this machine, which ends when it has answered everything; its address."""
    command = [sys.executable, "-m", "fastloaa.cli", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first_line = process.stdout.readline()  # http://127.0.0.1:PORT answers for ...
            if not first_line:
                raise SystemExit(f"the server did not start, exit code {process.wait()}")
            yield first_line.split()[0]
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="the ONNX file, unless --server is given, and sound files")
    parser.add_argument("--server", help="address of one that runs")
    arguments = parser.parse_args()

    def show(server: str, sounds: list[Path]) -> None:
        for sound in sounds:
            answer = ask(server, sound, top=3, timeline=True)
            print(f"{sound}: {answer.get('error') or in_words(answer['top'])}")
            for window in answer.get("timeline", []):
                print(f"  {window['start']:7.2f} s  {in_words(window['top'])}")

    if arguments.server:
        show(arguments.server, arguments.files)
    else:
        with served(arguments.files[0]) as server:
            show(server, arguments.files[1:])


def in_words(top: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['label']} {each['probability']:.1%}" for each in top)


if __name__ == "__main__":
    main()
