"""`make versions`: the suite under each set of versions, and the table of docs/versions.md from what came out.

Each set is an environment of tox, kept in .tox. One whose results are there for this commit and these arguments is not
run again; what that page says makes no difference. Arguments go to pytest.
"""

import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "bench"))
from timing import put_into  # noqa: E402

SETS = ("oldest", "middle", "newest")
PACKAGES = ("torch", "torchaudio", "triton", "timm", "transformers", "peft", "onnx", "onnxruntime", "numpy")
PAGE = ROOT / "docs" / "versions.md"


def main(arguments: list[str]) -> None:
    runs = [run(name, arguments) for name in SETS]
    text = table(runs)
    print(text)
    put_into(PAGE, "table", text)
    sys.exit(any(run is None or run["failed"] for run in runs))


def run(name: str, arguments: list[str]) -> dict[str, Any] | None:
    """What came out for a set, from the last time if nothing has changed since; None: it could not be run."""
    folder = ROOT / ".tox" / name
    kept, what = folder / "run.json", {"commit": commit(), "arguments": arguments}
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        if found.items() >= what.items():
            return found
    results = folder / "results.xml"
    results.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "tox", "run", "-e", name, "--", *arguments], cwd=ROOT, check=False)
    if not results.exists():
        return None
    suite = ElementTree.parse(results).getroot()[0]
    count = {kind: int(suite.attrib[kind]) for kind in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    done = what | {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": versions(folder),
        "passed": count["tests"] - failed - count["skipped"],
        "skipped": count["skipped"],
        "failed": failed,
        "names": sorted({f"{case.attrib['classname']}::{case.attrib['name']}" for case in broken(suite)}),
        "minutes": round(float(suite.attrib["time"]) / 60),
    }
    kept.write_text(json.dumps(done, indent=2))
    return done


def broken(suite: ElementTree.Element) -> list[ElementTree.Element]:
    return [case for case in suite if case.find("failure") is not None or case.find("error") is not None]


def versions(folder: Path) -> dict[str, str]:
    code = (
        "import json, platform; from importlib.metadata import version; "
        f"print(json.dumps({{'Python': platform.python_version()}} | {{name: version(name) for name in {PACKAGES}}}))"
    )
    done = subprocess.run([folder / "bin" / "python", "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def commit() -> str:
    """The last that changed anything but the page, with a mark where files differ from it."""
    rest = ["--", ".", f":!{PAGE.relative_to(ROOT)}"]
    last = git("log", "-1", "--format=%h", "--abbrev=7", *rest)
    return last + ("-dirty" if git("status", "--porcelain", *rest) else "")


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def table(runs: list[dict[str, Any] | None]) -> str:
    rows = [["", *SETS], ["---"] * (len(SETS) + 1)]
    for package in ("Python", *PACKAGES):
        rows.append([package, *(run["versions"][package] if run else "not run" for run in runs)])
    for name in ("passed", "failed", "skipped", "minutes", "date", "commit"):
        rows.append([name, *(str(run[name]) if run else "" for run in runs)])
    rows.append(
        ["`pytest ...`", *(f"`{' '.join(run['arguments'])}`" if run and run["arguments"] else "" for run in runs)]
    )
    lines = ["| " + " | ".join(row) + " |\n" for row in rows]
    failures = [f"- {name}: {test}\n" for name, run in zip(SETS, runs, strict=True) if run for test in run["names"]]
    return "".join(lines) + ("\nFailed:\n\n" + "".join(failures) if failures else "")


if __name__ == "__main__":
    main(sys.argv[1:])
