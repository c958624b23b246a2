"Downloads that go wrong, which a notebook cannot show: servers without ranges, dead addresses, forbidden folders."
import hashlib, http.server, os, threading, urllib.parse
import pytest
from mrbook.cohorts import public as datasets
from mrbook.cohorts.public import DatasetError, DataSet, File, fetch, fetch_file, find, info, list_datasets, verify

BODY = bytes(range(256)) * 500
SHA = hashlib.sha256(BODY).hexdigest()
FILE = File("folder one/scan.bin", len(BODY), SHA)

class Server(http.server.BaseHTTPRequestHandler):
    "Serves BODY under /good; other first folders misbehave as their name says."
    def log_message(self, *args): pass
    def do_GET(self):
        kind = urllib.parse.unquote(self.path).split("/")[1]
        self.server.requests.append((kind, self.headers.get("Range")))
        body = {"long": BODY + b"more", "corrupt": b"\0" * len(BODY)}.get(kind, BODY)
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if kind in ("good", "once", "liar") else 0
        if kind == "gone": return self.send_error(404)
        if kind == "busy" and len(self.server.requests) < 3: return self.send_error(503)
        if kind == "refuses" and self.headers.get("Range"): return self.send_error(416)
        if kind == "html": body = b"<html>please log in</html>"
        self.send_response(206 if start else 200)
        if start: self.send_header("Content-Range", f"bytes {0 if kind == 'liar' else start}-{len(body) - 1}/{len(body)}")
        if kind == "liar": start = 0
        self.send_header("Content-Length", str(len(body) - start)); self.end_headers()
        self.wfile.write(body[start:] if kind != "once" or len(self.server.requests) > 1 else body[start:start + 1000])

@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server); s.requests = []; s.url = f"http://127.0.0.1:{s.server_port}"
    threading.Thread(target=s.serve_forever, args=(.01,), daemon=True).start()
    yield s
    s.shutdown(); s.server_close()

def half(tmp_path, content=BODY[:60_000]):
    target = tmp_path / "scan.bin"; (tmp_path / "scan.bin.part").write_bytes(content); return target

@pytest.mark.parametrize("kind,ranges", [("good", ["bytes=60000-"]), ("norange", ["bytes=60000-"]), ("liar", ["bytes=60000-"]), ("refuses", ["bytes=60000-", None])])
def test_a_part_is_continued_or_started_over(server, tmp_path, kind, ranges):
    target = half(tmp_path)
    fetch_file([f"{server.url}/{kind}/x"], target, FILE)
    assert target.read_bytes() == BODY and not list(tmp_path.glob("*.part"))
    assert [r for _, r in server.requests] == ranges

@pytest.mark.parametrize("content", [b"\1" * 60_000, b"\1" * len(BODY), BODY + b"x"])
def test_a_wrong_part_gets_one_fresh_start(server, tmp_path, content):
    target = half(tmp_path, content)
    fetch_file([f"{server.url}/good/x"], target, FILE)
    assert target.read_bytes() == BODY

def test_a_finished_part_needs_no_server(tmp_path):
    target = half(tmp_path, BODY)
    fetch_file(["http://127.0.0.1:9/x"], target, FILE)
    assert target.read_bytes() == BODY

@pytest.mark.parametrize("kind,why", [("corrupt", "refused and removed"), ("long", "refused and removed"), ("gone", "404"), ("html", "closed after 26 of")])
def test_a_wrong_file_is_never_left(server, tmp_path, kind, why):
    target = tmp_path / "scan.bin"
    with pytest.raises(DatasetError, match=why) as e: fetch_file([f"{server.url}/{kind}/x"], target, FILE)
    assert not target.exists() and "\n" not in str(e.value) and str(target) in str(e.value)
    assert kind == "html" or not list(tmp_path.glob("*.part"))

def test_the_next_address_is_tried(server, tmp_path):
    fetch_file([f"{server.url}/gone/x", f"{server.url}/corrupt/x", f"{server.url}/good/x"], tmp_path / "scan.bin", FILE)
    assert [k for k, _ in server.requests] == ["gone", "corrupt", "good"]

@pytest.mark.parametrize("kind", ["busy", "once"])
def test_a_passing_fault_is_survived(server, tmp_path, kind):
    fetch_file([f"{server.url}/{kind}/x"], tmp_path / "scan.bin", FILE)
    assert (tmp_path / "scan.bin").read_bytes() == BODY

def test_interrupted_by_the_user_and_continued(server, tmp_path):
    def stop(n): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): fetch_file([f"{server.url}/good/x"], tmp_path / "scan.bin", FILE, stop)
    got = (tmp_path / "scan.bin.part").stat().st_size
    assert 0 < got < len(BODY)
    fetch_file([f"{server.url}/good/x"], tmp_path / "scan.bin", FILE)
    assert server.requests[-1][1] == f"bytes={got}-" and (tmp_path / "scan.bin").read_bytes() == BODY

@pytest.fixture
def made_up(server, monkeypatch):
    d = DataSet("made-up", "one file", "0 T", "CC0-1.0", "nobody", "nobody/made-up", ("good",), (FILE,))
    monkeypatch.setitem(datasets.DATASETS, "made-up", d); return d

def test_environment_names_the_folder(server, made_up, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MRBOOK_DATA", str(tmp_path / "deep/data"))
    assert find("made-up") is None and verify("made-up") == {FILE.path: "missing"}
    folder = fetch("made-up", mirror=f"{server.url}/good")
    assert folder == tmp_path / "deep/data/made-up" == find("made-up") and (folder / FILE.path).read_bytes() == BODY
    assert "made-up: 100%" in capsys.readouterr().err

def test_default_folder_is_data(server, made_up, tmp_path, monkeypatch):
    monkeypatch.delenv("MRBOOK_DATA", raising=False); monkeypatch.chdir(tmp_path)
    fetch("made-up", progress=False, mirror=f"{server.url}/good")
    assert (tmp_path / "data/made-up" / FILE.path).is_file()

def test_a_file_in_the_way_of_the_folder(server, made_up, tmp_path):
    (tmp_path / "made-up").write_text("a file")
    with pytest.raises(DatasetError, match="cannot write .* choose another folder"): fetch("made-up", tmp_path, progress=False, mirror=f"{server.url}/good")

def test_no_room(made_up, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.shutil, "disk_usage", lambda p: type("U", (), dict(free=10))())
    with pytest.raises(DatasetError, match="not enough room"): fetch("made-up", tmp_path, progress=False)

def test_every_address_is_pinned_to_a_commit():
    for d in list_datasets():
        for f in d.files:
            for url in d.urls(f):
                assert url.startswith(f"https://raw.githubusercontent.com/{d.repository}/") and " " not in url
                assert len(url.removeprefix(f"https://raw.githubusercontent.com/{d.repository}/").split("/")[0]) in (12, 40)
            assert ".." not in f.path and not f.path.startswith("/")

@pytest.mark.skipif(not os.environ.get("MRBOOK_DATA"), reason="set MRBOOK_DATA to the folder with the real data sets")
def test_real_files_are_the_registered_ones():
    assert find("ulf055") and set(verify("ulf055").values()) == {"ok"} and len(info("ulf055").files) == 18
