"""Cohorts in object storage, read from and written to a real server that speaks S3, and from a web server."""

import functools
import http.server
import itertools
import json
import pickle
import re
import shutil
import sys
import threading

import numpy as np
import pytest
from memory_source import MemorySource

from compseg import doctor
from compseg.api import PASS, Finding
from compseg.batches import CohortData
from compseg.cohort import Cohort, find_problems, is_url, location, prepare, store, upload
from compseg.errors import CompsegError
from object_storage import s3_server
from running import run_here

obstore = pytest.importorskip("obstore")


@pytest.fixture(scope="module", autouse=True)
def server():
    with s3_server("spots") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    path = tmp_path_factory.mktemp("locations") / "c.zarr"
    return prepare(MemorySource(count=12, size=(40, 50, 3)), path, chunk=16, progress=False)


def objects(url):
    return obstore.store.from_url(url, client_options={"allow_http": True})


def assert_same(ours, theirs):
    assert [record.to_dict() for record in ours.records] == [record.to_dict() for record in theirs.records]
    for info in theirs.infos:
        for part in theirs.record(info.name).checksums:
            np.testing.assert_array_equal(ours.part(info.name, part), theirs.part(info.name, part))


def test_what_is_uploaded_is_read_again(local):
    url = "s3://spots/study/c.zarr"
    upload(local.path, url, progress=False)
    remote = Cohort.open(url + "/")
    assert remote.path == url
    assert_same(remote, local)
    window = slice(3, 20), slice(30, 50)
    np.testing.assert_array_equal(remote.image("s01", window), local.image("s01", window))
    assert_same(pickle.loads(pickle.dumps(remote)), local)
    assert find_problems(url) == find_problems(local.path)


def test_a_loader_streams_from_there(local):
    upload(local.path, "s3://spots/streamed", progress=False)
    batches = []
    for path in (local.path, "s3://spots/streamed"):
        data = CohortData(str(path), batch_size=2, cache="none", workers=0)
        data.prepare_data()
        data.setup()
        batches.append([(batch["index"], batch["image"].double().sum().item()) for batch in data.train_dataloader()])
    assert batches[0] == batches[1]
    assert len(batches[0]) > 1


def test_a_window_fetches_its_blocks_alone(tmp_path, monkeypatch):
    cohort = prepare(MemorySource(count=2, size=(128, 128, 3)), tmp_path / "c", chunk=16, progress=False)
    upload(cohort.path, "s3://spots/blocks", progress=False)
    remote, fetched = Cohort.open("s3://spots/blocks"), []
    remote.image("s00", (slice(0, 1), slice(0, 1)))  # opens the array
    real = obstore.get_range_async

    async def counting(store, path, **options):
        fetched.append(options["end"] - options["start"])
        return await real(store, path, **options)

    monkeypatch.setattr(obstore, "get_range_async", counting)
    remote.image("s00", (slice(20, 40), slice(20, 40)))
    assert len(fetched) == 4  # of 64 blocks
    assert sum(fetched) < 5 * 16 * 16 * 3 * 2


def test_an_upload_is_whole_or_not_there(local, monkeypatch):
    url, real, count = "s3://spots/broken", obstore.put, itertools.count()
    upload(local.path, url, progress=False)  # an older one

    def failing(store, path, file):
        if next(count) == 7:
            raise OSError("the line is cut")
        return real(store, path, file)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", failing)
        with pytest.raises(
            CompsegError, match=r"s3://spots/broken: cannot be written \(the line is cut\); check the address"
        ):
            upload(local.path, url, progress=False)
    with pytest.raises(CompsegError, match=r"s3://spots/broken: no such cohort; .* upload=s3://spots/broken"):
        Cohort.open(url)
    upload(local.path, url, progress=False)
    assert_same(Cohort.open(url), local)


def test_damage_is_named(local):
    url = "s3://spots/damaged"
    upload(local.path, url, progress=False)
    obstore.put(objects(url), "samples/s02/tissue/c/0/0", b"nonsense")
    obstore.delete(objects(url), "samples/s03/image/zarr.json")
    found = {(problem.sample, problem.file) for problem in find_problems(url)}
    assert found >= {("s02", "samples/s02/tissue"), ("s03", "samples/s03/image")}
    with pytest.raises(CompsegError, match="s3://spots/damaged/samples/s03/image: damaged or missing"):
        Cohort.open(url).image("s03")


def test_what_is_lost_or_replaced_there(local, monkeypatch):
    url, corner = "s3://spots/replaced", (slice(0, 2), slice(0, 2))
    upload(local.path, url, progress=False)
    cohort = Cohort.open(url)
    assert cohort.fingerprint == local.fingerprint
    assert cohort.is_unchanged()
    obstore.delete(objects(url), "samples/s03/image/c/0/0/0")
    with pytest.raises(CompsegError, match=r"s03/image: damaged or missing \(its file is missing"):
        cohort.image("s03", corner)
    table = json.loads(bytes(obstore.get(objects(url), "zarr.json").bytes()))
    table["attributes"]["compseg"]["samples"][0]["label"] = 1
    obstore.put(objects(url), "zarr.json", json.dumps(table).encode())
    assert cohort.is_unchanged()  # looked at a moment ago
    monkeypatch.setattr(store, "LOOK_SECONDS", 0.0)
    assert not cohort.is_unchanged()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert cohort.is_unchanged()  # storage that is silent says nothing


def test_what_is_out_of_reach_says_so_soon(local, monkeypatch):
    with pytest.raises(CompsegError, match="s3://nowhere/c: no such cohort"):
        Cohort.open("s3://nowhere/c")
    with pytest.raises(CompsegError, match=r"s3://nowhere/c: cannot be written .*nowhere/c/samples.*404"):
        upload(local.path, "s3://nowhere/c", progress=False)
    with pytest.raises(CompsegError, match=r"ftp://host/c: .*expected s3://, gs://, az:// or https://"):
        Cohort.open("ftp://host/c")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        CompsegError, match=r"s3://spots/c: .* check the address, the network and the credentials \(AWS_ACCESS_KEY_ID"
    ) as raised:
        Cohort.open("s3://spots/c")
    assert "\n" not in str(raised.value)


def test_the_doctor_says_how_storage_answers(local, website, monkeypatch):
    monkeypatch.setattr(doctor, "trial", lambda *_: Finding(PASS, "trial", "well"))
    monkeypatch.setattr(doctor, "LOOKS", {})
    upload(local.path, "s3://spots/seen.zarr", progress=False)
    for url in ("s3://spots/seen.zarr", f"{website}/c.zarr"):
        found = list(doctor.training(url, {}))
        assert [each.subject for each in found] == ["storage", "cohort", "samples", "trial"]
        assert re.fullmatch(r"answers in \d+\.\d\d s, gives a sample of 0\.0 MiB in \d+\.\d\d s", found[0].found)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://spots/c", r"s3://spots/c: .*; check the address, the network and the credentials \(AWS_ACCESS_KEY_ID.*"),
        ("http://127.0.0.1:9/c", r"http://127\.0\.0\.1:9/c: .*; check the address, the network and the server"),
        ("ftp://host/c", r"ftp://host/c: .*; expected s3://, gs://, az:// or https://"),
    ],
)
def test_the_doctor_says_what_is_out_of_reach(url, words, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(doctor, "LOOKS", {})
    assert run_here("doctor", f"cohort={url}") == 1
    assert re.fullmatch(f"FAIL  cohort     {words}\n", capsys.readouterr().out)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(CompsegError, match=r"s3://spots/c: needs obstore; pip install 'compseg\[remote\]'"):
        Cohort.open("s3://spots/c")


def test_a_cohort_is_built_in_a_folder(tmp_path):
    with pytest.raises(
        CompsegError, match=r"a cohort is built in a folder; give out=data/mine\.zarr and upload=s3://b/c"
    ):
        prepare(MemorySource(), "s3://b/c", progress=False)


@pytest.fixture
def website(local, tmp_path):
    shutil.copytree(local.path, tmp_path / "public/c.zarr")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "public"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_plain_web_server_is_enough_to_read_from(website, local):
    assert_same(Cohort.open(f"{website}/c.zarr"), local)
    with pytest.raises(CompsegError, match=r"other\.zarr: no such cohort"):
        Cohort.open(f"{website}/other.zarr")


@pytest.mark.parametrize(
    ("path", "url"), [("s3://b/c", True), ("https://h/c", True), ("data/c", False), ("C:/c", False)]
)
def test_folders_and_addresses(path, url):
    assert is_url(path) == url
    assert str(location(path)) == path
