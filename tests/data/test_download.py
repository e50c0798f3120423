"""Downloads against a local server that can break, change, lie and refuse."""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tandemrec.data.download import download
from tandemrec.data.known import KnownFile, KnownSource, known_source, known_sources
from tandemrec.data.sources import SourceConfig
from tandemrec.errors import InputError


class Server(ThreadingHTTPServer):
    """Serves `files` by name. Settings say how it misbehaves; `requests` remembers what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.break_after: list[int] = []
        self.ranges = True
        self.validators = True
        self.answer: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server, name, wanted = self.server, self.path.lstrip("/"), self.headers.get("Range")
        server.requests.append((name, wanted))
        if name not in server.files or server.answer is not None:
            self.send_error(server.answer or 404)
            return
        data, start = server.files[name], 0
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        if wanted and server.ranges and self.headers.get("If-Range") == tag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("ETag", tag)
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if server.validators:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        stop = start + server.break_after.pop(0) if server.break_after else len(data)
        self.wfile.write(data[start:stop])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEMREC_PROGRESS", "0")
    monkeypatch.setenv("no_proxy", "*")


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return buffer.getvalue()


RATINGS = bytes(range(256)) * 4000
ZIP = archive({"toy/ratings.csv": RATINGS, "toy/README.txt": b"read me", "__MACOSX/._x": b"junk"})


def source(*names: str, md5: str | None = None) -> KnownSource:
    files = tuple(KnownFile(url=f"http://example.invalid/{name}", md5=md5) for name in names or ("toy.zip",))
    return KnownSource(name="toy", title="t", licence="l", page="p", files=files, recipe={"format": "sample"})


def get(server: Server, root: Path, known: KnownSource | None = None) -> Path:
    return download(known or source(), root, base_url=server.url, timeout=5)


def test_archive_becomes_a_folder(server: Server, tmp_path: Path) -> None:
    server.files["toy.zip"] = ZIP
    folder = get(server, tmp_path / "new", source(md5=hashlib.md5(ZIP).hexdigest()))
    assert folder == tmp_path / "new" / "toy"
    assert (folder / "ratings.csv").read_bytes() == RATINGS
    assert sorted(path.name for path in folder.iterdir()) == ["README.txt", "ratings.csv"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["toy", "toy.lock.json"]
    lock = json.loads((tmp_path / "new" / "toy.lock.json").read_text())
    assert lock["downloads"] == {"toy.zip": hashlib.sha256(ZIP).hexdigest()}
    assert lock["files"]["ratings.csv"] == hashlib.sha256(RATINGS).hexdigest()


def test_plain_files_are_kept_as_they_are(server: Server, tmp_path: Path) -> None:
    server.files |= {"a.csv": b"1", "b.json.gz": b"2"}
    folder = get(server, tmp_path, source("a.csv", "b.json.gz"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.csv": b"1", "b.json.gz": b"2"}


def test_second_time_nothing_is_downloaded_but_verified(server: Server, tmp_path: Path) -> None:
    server.files["toy.zip"] = ZIP
    folder = get(server, tmp_path)
    asked = len(server.requests)
    assert get(server, tmp_path) == folder
    assert len(server.requests) == asked
    (folder / "ratings.csv").write_bytes(b"other")
    with pytest.raises(InputError, match=r"ratings.csv differs from what was downloaded"):
        get(server, tmp_path)
    (folder / "ratings.csv").unlink()
    with pytest.raises(InputError, match=r"ratings.csv is missing"):
        get(server, tmp_path)


def test_broken_connection_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.files["toy.zip"] = ZIP
    server.break_after = [300_000, 200_000]
    folder = get(server, tmp_path)
    assert (folder / "ratings.csv").read_bytes() == RATINGS
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_next_call_continues_where_the_last_ended(server: Server, tmp_path: Path) -> None:
    server.files["toy.zip"] = ZIP
    server.break_after = [300_000, 0]
    with pytest.raises(InputError, match=r"connection ended after 300000 of \d+ bytes; 300000 bytes are kept"):
        get(server, tmp_path)
    assert not (tmp_path / "toy").exists()
    assert (tmp_path / "toy.part" / "toy.zip.part").stat().st_size == 300_000
    assert (get(server, tmp_path) / "ratings.csv").read_bytes() == RATINGS
    assert server.requests[-1] == ("toy.zip", "bytes=300000-")
    assert not (tmp_path / "toy.part").exists()


@pytest.mark.parametrize("property_", ["ranges", "validators"])
def test_servers_that_cannot_continue_start_over(server: Server, tmp_path: Path, property_: str) -> None:
    server.files["toy.zip"] = ZIP
    setattr(server, property_, False)
    server.break_after = [300_000]
    assert (get(server, tmp_path) / "ratings.csv").read_bytes() == RATINGS


def test_file_that_changed_in_between_is_not_mixed(server: Server, tmp_path: Path) -> None:
    server.files["toy.zip"] = ZIP
    server.break_after = [300_000, 0]
    with pytest.raises(InputError):
        get(server, tmp_path)
    changed = RATINGS[::-1]
    server.files["toy.zip"] = archive({"toy/ratings.csv": changed})
    assert (get(server, tmp_path) / "ratings.csv").read_bytes() == changed


def test_part_that_is_already_whole(server: Server, tmp_path: Path) -> None:
    server.files["toy.zip"] = ZIP
    draft = tmp_path / "toy.part"
    draft.mkdir()
    (draft / "toy.zip.part").write_bytes(ZIP)
    (draft / "toy.zip.part.json").write_text(json.dumps({"validator": f'"{hashlib.md5(ZIP).hexdigest()}"'}))
    assert (get(server, tmp_path) / "ratings.csv").read_bytes() == RATINGS
    assert server.requests == [("toy.zip", f"bytes={len(ZIP)}-")]


def test_part_longer_than_the_file(server: Server, tmp_path: Path) -> None:
    server.files["toy.zip"] = ZIP
    draft = tmp_path / "toy.part"
    draft.mkdir()
    (draft / "toy.zip.part").write_bytes(ZIP + b"more")
    (draft / "toy.zip.part.json").write_text(json.dumps({"validator": f'"{hashlib.md5(ZIP).hexdigest()}"'}))
    assert (get(server, tmp_path) / "ratings.csv").read_bytes() == RATINGS


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    server.files["toy.zip"] = ZIP
    with pytest.raises(
        InputError, match=r"toy.zip .* has MD5 \w+, but its publisher gives 0{32}; the file was removed"
    ):
        get(server, tmp_path, source(md5="0" * 32))
    assert not (tmp_path / "toy").exists()
    assert not (tmp_path / "toy.part" / "toy.zip").exists()


def test_unpublished_checksum_is_remembered(server: Server, tmp_path: Path) -> None:
    server.files["a.csv"] = b"first"
    folder = get(server, tmp_path, source("a.csv"))
    (folder / "a.csv").unlink()
    server.files["a.csv"] = b"second"
    with pytest.raises(InputError, match=r"toy.lock.json recorded .* at an earlier download"):
        get(server, tmp_path, source("a.csv"))
    server.files["a.csv"] = b"first"
    assert (get(server, tmp_path, source("a.csv")) / "a.csv").read_bytes() == b"first"
    (folder / "a.csv").unlink()
    server.files["a.csv"] = b"second"
    (tmp_path / "toy.lock.json").unlink()
    assert (get(server, tmp_path, source("a.csv")) / "a.csv").read_bytes() == b"second"


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/absolute.txt", "toy/../../outside.txt", "..\\outside.txt", "C:x.txt"]
)
def test_archive_cannot_write_outside(server: Server, tmp_path: Path, name: str) -> None:
    server.files["toy.zip"] = archive({"toy/good.txt": b"1", name: b"2"})
    root = tmp_path / "deep" / "root"
    with pytest.raises(InputError, match=r"holds a path outside its folder .*nothing was unpacked"):
        get(server, root)
    assert not (root / "toy").exists()
    assert not list(tmp_path.rglob("*.txt"))


def test_archive_cannot_hold_links(server: Server, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("toy/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr(info, "/etc")
    server.files["toy.zip"] = buffer.getvalue()
    with pytest.raises(InputError, match=r"holds a link \('toy/link'\)"):
        get(server, tmp_path)


@pytest.mark.parametrize(
    "data", [b"<html>moved</html>", ZIP[: len(ZIP) // 2], ZIP.replace(RATINGS[:400], RATINGS[1:401])]
)
def test_damaged_archive(server: Server, tmp_path: Path, data: bytes) -> None:
    server.files["toy.zip"] = data
    with pytest.raises(InputError, match=r"toy.zip is no intact zip archive .*the file was removed"):
        get(server, tmp_path)
    assert not (tmp_path / "toy").exists()
    server.files["toy.zip"] = ZIP
    assert (get(server, tmp_path) / "ratings.csv").read_bytes() == RATINGS


def test_second_file_missing_keeps_the_first(server: Server, tmp_path: Path) -> None:
    server.files["a.csv"] = b"1"
    with pytest.raises(InputError, match=r"b.csv: the server answers 404"):
        get(server, tmp_path, source("a.csv", "b.csv"))
    server.files["b.csv"] = b"2"
    get(server, tmp_path, source("a.csv", "b.csv"))
    assert [name for name, _ in server.requests] == ["a.csv", "b.csv", "b.csv"]


def test_server_errors_and_no_server(server: Server, tmp_path: Path) -> None:
    server.files["toy.zip"] = ZIP
    server.answer = 503
    with pytest.raises(InputError, match="the server answers 503"):
        get(server, tmp_path)
    with pytest.raises(InputError, match="the server cannot be reached"):
        download(source(), tmp_path, base_url="http://127.0.0.1:9", timeout=5)
    with pytest.raises(InputError, match=r"cannot download 'nonsense/toy.zip'"):
        download(source(), tmp_path, base_url="nonsense")


def test_folder_of_the_user_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    server.files["toy.zip"] = ZIP
    get(server, tmp_path)
    (tmp_path / "toy.lock.json").unlink()
    with pytest.raises(InputError, match="exists already and is no download"):
        get(server, tmp_path)
    (tmp_path / "toy.lock.json").write_text("{")
    with pytest.raises(InputError, match="is no lock file"):
        get(server, tmp_path)


def test_root_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write 'toy' there"):
        get(server, tmp_path / "file")


def test_known_sources_are_consistent() -> None:
    names = [known.name for known in known_sources()]
    assert len(set(names)) == len(names)
    assert {"ml-100k", "ml-1m", "ml-32m", "ml-latest-small", "book-crossing", "steam", "microlens-50k"} <= set(names)
    assert known_source("ml-1m").files[0].md5 == "c4d9eecfca2ab87c1945afe126590906"
    from pydantic import TypeAdapter

    for known in known_sources():
        config = TypeAdapter(SourceConfig).validate_python(known.recipe)
        assert config.default_name == known.name
        assert known.licence
        assert all(file.url.startswith(("https://", "http://www2.informatik.uni-freiburg.de")) for file in known.files)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"no known data set 'ml-2m'; did you mean .*ml-"):
        known_source("ml-2m")
    with pytest.raises(InputError, match=r"known are ml-100k, .*steam, amazon-2014-CATEGORY"):
        known_source("zzzzzz")
