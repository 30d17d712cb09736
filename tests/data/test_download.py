"""Downloads from a local server."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from fastloaa.data import DataError, load_splits
from fastloaa.data.download import ELSEWHERE, SOURCES, Source, download, fetch, install, unpack
from fastloaa.files import WriteError, making_folder
from fastloaa.files.locks import LockedError
from helpers.archives import packed_tar, packed_zip, serving
from helpers.full_disk import files_of_at_most
from helpers.lock_holder import holder
from helpers.tones import write_tone


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def tone(tmp_path: Path) -> bytes:
    return write_tone(tmp_path / "tone.wav").read_bytes()


@pytest.fixture
def esc50(tone: bytes) -> bytes:
    """ESC-50 as GitHub packs it: one folder that holds everything."""
    rows = [f"{fold}-{i}.wav,{fold},{i},c{i},True,{fold}{i},A" for fold in range(1, 6) for i in range(2)]
    table = "\n".join(["filename,fold,target,category,esc10,src_file,take", *rows])
    sounds = {f"ESC-50-master/audio/{row.split(',')[0]}": tone for row in rows}
    return packed_zip({"ESC-50-master/meta/esc50.csv": table.encode(), **sounds})


@pytest.fixture
def speech_commands(tone: bytes) -> bytes:
    """Speech Commands as its archive is: without a folder around it."""
    lists = {"./validation_list.txt": b"no/b_nohash_0.wav\n", "./testing_list.txt": b"no/c_nohash_0.wav\n"}
    names = ("yes/a_nohash_0.wav", "no/b_nohash_0.wav", "no/c_nohash_0.wav", "_background_noise_/x.wav")
    return packed_tar(lists | {f"./{name}": tone for name in names})


def left(folder: Path) -> set[str]:
    """What is in the folder, but for the tone that archives are made of."""
    return {path.name for path in folder.iterdir()} - {"tone.wav"}


def test_into_the_folder_that_it_runs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is fetched, by any name; a path that ends in .. has a name as well."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    source = Source("mini", "http://127.0.0.1:9/", None, "")
    for name in (".", "../a", "b/..", tmp_path / "a"):
        with pytest.raises(WriteError, match=": it is the folder that this runs in; give another place"):
            install(source, Path(name))
    with pytest.raises(DataError, match="not an empty folder"):
        install(source, Path(".."))

    def make() -> None:
        with making_folder("..") as temporary:
            temporary.mkdir()
            (temporary / "x").touch()

    with pytest.raises(WriteError):
        make()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_a_zip_becomes_a_data_set(esc50: bytes, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with serving(esc50) as server:
        source = Source("mini", server.url, None, "")
        folder = install(source, tmp_path / "data" / "esc50", lambda have, total: seen.append((have, total)))
    assert load_splits(folder, test_fold=2).summary() == (
        "esc50 (test fold 2): 2 classes; clips: 8 train, 0 validation, 2 test"
    )
    assert seen[-1] == (len(esc50), len(esc50))
    assert left(folder.parent) == {"esc50"}
    record = json.loads((folder / "download.json").read_text())
    assert (record["sha256"], record["bytes"], record["checked"]) == (sha256(esc50), len(esc50), False)


def test_a_tar_becomes_a_data_set_and_its_checksum_is_checked(speech_commands: bytes, tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    with serving(speech_commands) as server:
        folder = install(Source("mini", server.url, sha256(speech_commands), ""), tmp_path / "words")
    splits = load_splits(folder)
    assert (splits.classes, len(splits.train), len(splits.validation), len(splits.test)) == (("no", "yes"), 1, 1, 1)
    assert json.loads((folder / "download.json").read_text())["checked"]
    assert left(tmp_path) == {"words"}


def test_another_checksum_is_refused_and_leaves_nothing(esc50: bytes, tmp_path: Path) -> None:
    with (
        serving(esc50) as server,
        pytest.raises(DataError, match=rf"SHA-256 {sha256(esc50)}, expected 00;.*try again$"),
    ):
        install(Source("mini", server.url, "00", ""), tmp_path / "esc50")
    assert left(tmp_path) == set()


def test_a_broken_connection_is_resumed(esc50: bytes, tmp_path: Path) -> None:
    source_of = {"name": "mini", "sha256": sha256(esc50), "about": ""}
    with serving(esc50) as server:
        server.cut = 1000
        with pytest.raises(DataError, match=rf"ended after 1000 of {len(esc50)} bytes; the same command goes on"):
            install(Source(url=server.url, **source_of), tmp_path / "esc50")
        assert left(tmp_path) == {"esc50.part"}
        server.cut = None
        assert len(load_splits(install(Source(url=server.url, **source_of), tmp_path / "esc50")).train) == 8
        assert server.asked == [None, "bytes=1000-"]
    assert left(tmp_path) == {"esc50"}


def test_whoever_comes_second_is_refused(esc50: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "esc50"
    with serving(esc50) as server:
        source = Source("mini", server.url, None, "")
        with holder(tmp_path / ".esc50.lock") as pid:
            with pytest.raises(LockedError, match=rf"^{folder}: in use by process {pid} on "):
                install(source, folder)
            assert not server.asked
        install(source, folder)
    assert left(tmp_path) == {"esc50"}


@pytest.mark.parametrize("size", [1000, 20_000], ids=["archive", "unpacked"])
def test_a_full_disk_is_not_taken_for_the_connection(size: int, tmp_path: Path) -> None:
    content = packed_zip({f"data/{number}.txt": bytes(number) for number in (1, 1000, 50_000)})
    with serving(content) as server:
        source = Source("mini", server.url, sha256(content), "")
        with files_of_at_most(size), pytest.raises(WriteError, match=r"cannot be written: File too large; free some"):
            install(source, tmp_path / "data")
        assert left(tmp_path) == {"data.part"}
        install(source, tmp_path / "data")  # goes on from there
    assert left(tmp_path) == {"data"}


def test_progress_counts_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123")
    seen: list[tuple[int, int | None]] = []
    with serving(b"0123456789") as server:
        fetch(server.url, tmp_path / "a", lambda have, total: seen.append((have, total)))
    assert seen == [(10, 10)]
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_server_without_ranges_starts_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"what was there before, and longer")
    with serving(b"0123456789", ranges=False) as server:
        fetch(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_complete_file_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    with serving(b"0123456789") as server:
        fetch(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_server_that_refuses_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"more than there is")
    with (
        serving(b"0123456789") as server,
        pytest.raises(DataError, match=r"the server answers 416 (Requested )?Range Not"),
    ):
        fetch(server.url, tmp_path / "a")


def test_no_connection_is_one_line(tmp_path: Path) -> None:
    with serving(b"") as server:
        url = server.url
    with pytest.raises(DataError, match=rf"^{url}: .*refused.*; check the connection, the same command goes on from h"):
        fetch(url, tmp_path / "a")


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "a/../../outside.txt", "..\\outside.txt"])
def test_a_zip_that_reaches_outside_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(packed_zip({"in.txt": b"", name: b"x"}))
    with pytest.raises(DataError, match=r"in it would land outside the folder; do not use it$"):
        unpack(tmp_path / "a.part", tmp_path / "deep" / "folder")
    assert not list(tmp_path.rglob("*.txt"))


@pytest.mark.parametrize("name", ["../outside.txt", "a/../../outside.txt"])
def test_a_tar_that_reaches_outside_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(packed_tar({name: b"x"}))
    with pytest.raises(DataError, match=r"outside the destination; do not use it$"):
        unpack(tmp_path / "a.part", tmp_path / "deep" / "folder")
    assert not list(tmp_path.rglob("*.txt"))


def test_a_tar_with_a_link_to_outside_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../secret"
        archive.addfile(link)
    (tmp_path / "a.part").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"outside the destination; do not use it$"):
        unpack(tmp_path / "a.part", tmp_path / "folder")


@pytest.mark.parametrize("kind", ["zip", "tar", "text"])
def test_a_damaged_archive_is_named(kind: str, tmp_path: Path) -> None:
    noise = bytes(i * i % 251 for i in range(5000))
    content = {"zip": packed_zip({"a": noise}), "tar": packed_tar({"a": noise}), "text": b"<html>Not Found</html>"}[
        kind
    ]
    half = bytearray(content)
    if kind == "zip":
        half[2500] ^= 0xFF  # the list of contents at the end stays readable
    else:
        half = half[: len(half) // 2]
    (tmp_path / "a.part").write_bytes(half)
    with pytest.raises(
        DataError, match=r"a\.part: damaged, or neither zip nor tar \(.*\); delete it and try again$"
    ) as error:
        unpack(tmp_path / "a.part", tmp_path / "folder")
    assert error.value.args[0].count("\n") == 0


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"mine: not an empty folder; give a new one, or use what is there$"):
        download("esc50", tmp_path / "mine")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_sets_that_need_a_person_say_where_they_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"^{name} cannot be fetched by a program: the tables are at https://"
    ) as error:
        download(name, tmp_path / "new")
    assert "\n" not in str(error.value)


def test_an_unknown_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^no data set 'esc' to download; expected one of esc50, speechcommands, epic-s"
    ):
        download("esc", tmp_path / "new")


def test_the_checksum_of_speech_commands_is_torchaudios() -> None:
    from torchaudio.datasets.speechcommands import _CHECKSUMS

    url = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
    assert SOURCES["speechcommands"].sha256 == _CHECKSUMS[url]
    assert SOURCES["speechcommands"].url.endswith(url.removeprefix("http://"))
