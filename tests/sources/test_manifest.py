import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compseg.errors import CompsegError
from compseg.samples import identifier
from compseg.sources.manifest import LABELS, read_manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    for name in ("a.png", "b.png", "with, comma.png"):
        (folder / name).touch()
    return folder


def read(folder, text, classes=None):
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_manifest(path, classes)


def test_columns_of_the_contract(folder):
    (row,) = read(
        folder,
        "sample,image,label,class,split,group,patient,tissue,truth,reference,age\n"
        "s1,a.png,1,T,train,slide 1,p1,a.png,b.png,a.png,63\n",
    )
    info = row.info
    assert (info.name, info.label, info.class_name, info.split) == ("s1", 1, "T", "train")
    assert (info.group, info.patient, info.origin) == ("slide 1", "p1", "a.png")
    assert row.files == {
        "image": folder / "a.png",
        "tissue": folder / "a.png",
        "truth": folder / "b.png",
        "reference": folder / "a.png",
    }


def test_a_thumbnail_is_a_reference_by_another_name(folder):
    (row,) = read(folder, "sample,image,label,Thumbnail\ns1,a.png,1,b.png\n")
    assert row.files == {"image": folder / "a.png", "reference": folder / "b.png"}
    with pytest.raises(CompsegError, match="column reference comes 2 times; keep one"):
        read(folder, "sample,image,label,thumbnail,reference\ns1,a.png,1,b.png,b.png\n")


def test_classes_map_words_and_null_leaves_out(folder):
    text = "sample,image,class\ns1,a.png,T\ns2,b.png,NAT\ns3,a.png,N\n"
    rows = read(folder, text, {"T": 1, "N": 0, "NAT": None})
    assert [(row.info.name, row.info.label) for row in rows] == [("s1", 1), ("s3", 0)]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfsample,image,label\ns1,a.png,1\n",  # byte order mark, as spreadsheets write it
        "sample;image;label\r\ns1;a.png;1\r\n",
        "sample\timage\tlabel\ns1\ta.png\t1\n",
        " Sample , IMAGE ,Label\n s1 , a.png , Disease \n",
        'sample,image,label\n"s1","a.png","disease"\n',
        "sample,image,label,,\ns1,a.png,1,,\n\n,,,,\n",  # empty columns and lines
    ],
)
def test_forms_of_one_row(folder, text):
    (row,) = read(folder, text)
    assert (row.info.name, row.info.label, row.files["image"]) == ("s1", 1, folder / "a.png")


ERRORS = {
    "absent column": ("sample,label\ns1,1\n", None, "no column image"),
    "no label": ("sample,image\ns1,a.png\n", None, "neither column label nor class"),
    "misspelt column": ("sample,image,label,patients\ns1,a.png,1,p\n", None, "did you mean 'patient'"),
    "patient_id": ("sample,image,label,patient_id\ns1,a.png,1,p\n", None, "did you mean 'patient'"),
    "column twice": ("sample,image,label,label\ns1,a.png,1,1\n", None, "label comes 2 times"),
    "ragged, short": ("sample,image,label\ns1,a.png,1\ns2,b.png\n", None, "line 3: 2 cells, the header has 3"),
    "ragged, long": ("sample,image,label\ns2,with, comma.png,1\n", None, "line 2: 4 cells"),
    "label word": (
        "sample,image,label\ns1,a.png,diseased\n",
        None,
        "line 2, sample s1: label 'diseased'; did you mean 'disease'",
    ),
    "label empty": ("sample,image,label\ns1,a.png,\n", None, "sample s1: no label"),
    "class unmapped": (
        "sample,image,class\ns1,a.png,NATS\n",
        {"NAT": None},
        "class 'NATS' is not in source.classes; did you mean 'NAT'",
    ),
    "class against label": (
        "sample,image,label,class\ns1,a.png,0,T\n",
        {"T": 1},
        "label 0, but source.classes maps T to 1",
    ),
    "class without mapping": ("sample,image,class\ns1,a.png,T\n", None, "source.classes={'T': 1"),
    "split word": ("sample,image,label,split\ns1,a.png,1,tets\n", None, "split 'tets'; did you mean 'test'"),
    "missing file": ("sample,image,label\ns1,c.png,1\n", None, "c.png does not exist"),
    "missing truth": ("sample,image,label,truth\ns1,a.png,1,t.png\n", None, "truth"),
    "no image cell": ("sample,image,label\ns1,,1\n", None, "no image"),
    "name twice": ("sample,image,label\ns1,a.png,1\nS1,b.png,0\n", None, "has the name of another sample"),
    "name twice when cleaned": ("sample,image,label\ns 1,a.png,1\ns/1,b.png,0\n", None, "has the name of another"),
    "no name": ("sample,image,label\n__,a.png,1\n", None, "is no name"),
    "all left out": ("sample,image,class\ns1,a.png,T\n", {"T": None}, "no samples"),
    "empty": ("", None, "empty"),
    "open quote": ('sample,image,label\n"s1,a.png,1\n', None, "check the quotes"),
    "not UTF-8": ("sample,image,label\nä,a.png,1\n".encode("latin-1"), None, "not UTF-8"),
}


@pytest.mark.parametrize(("text", "classes", "words"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_line_and_name_the_culprit(folder, text, classes, words):
    with pytest.raises(CompsegError) as raised:
        read(folder, text, classes)
    assert words in str(raised.value)
    assert str(folder / "labels.csv") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_manifest(tmp_path):
    with pytest.raises(CompsegError, match="cannot be read"):
        read_manifest(tmp_path / "none.csv")


def test_a_quoted_path_may_hold_a_comma(folder):
    (row,) = read(folder, 'sample,image,label\ns1,"with, comma.png",0\n')
    assert row.files["image"].name == "with, comma.png"


words = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=12)


@given(
    label=st.sampled_from(sorted(LABELS)),
    case=st.sampled_from([str.upper, str.lower, str.title]),
    space=st.text(" \t", max_size=2),
    group=words,
    patient=words,
    extra=words,
    bom=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    order=st.permutations(["sample", "image", "label", "group", "patient", "remarks"]),
)
def test_any_well_formed_row_is_read_as_written(folder, label, case, space, group, patient, extra, bom, end, order):
    cells = {"sample": "s1", "image": "with, comma.png", "label": space + case(label) + space}
    cells |= {"group": group, "patient": patient, "remarks": extra}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, order, lineterminator=end)
    writer.writeheader()
    writer.writerow(cells)
    (row,) = read(folder, text.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    assert row.info.label == LABELS[label]
    assert (row.info.group, row.info.patient) == (identifier(group), identifier(patient))
    assert row.files == {"image": folder / "with, comma.png"}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_line(folder, content):
    try:
        rows = read(folder, b"sample,image,label\n" + content)
    except CompsegError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert rows


NAMES = {
    "日本語": "日本語",
    "Probe 1": "Probe_1",
    "e\u0301": "é",
    "../x": "x",
    "con": "con_",
    "'=1+1": "1+1",
    "<b>": "b_",
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_names_are_fit_for_files(folder, name, expected):
    (row,) = read(folder, f"sample,image,label\n{name},a.png,1\n")
    assert row.info.name == expected


def test_a_table_of_ours_gives_back_its_groups(folder):
    (row,) = read(folder, "sample,image,label,group,patient\ns1,a.png,1,'=A1,'B\n")
    assert (row.info.group, row.info.patient) == ("=A1", "'B")


def test_paths_that_cannot_be_files(folder):
    for path, words in (("p" * 5000, "file name too long"), ("a\0b", "null"), (".", "is a folder")):
        with pytest.raises(CompsegError) as raised:
            read(folder, f"sample,image,label\ns1,{path},1\n")
        assert "line 2, sample s1: image" in str(raised.value)
        assert words in str(raised.value)
        assert len(str(raised.value)) < 600


def test_a_pipe_is_refused_and_does_not_hang(folder):
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(CompsegError, match="is a pipe"):
        read(folder, "sample,image,label\ns1,pipe.png,1\n")
    with pytest.raises(CompsegError, match="is a pipe"):
        read_manifest(folder / "pipe.png")
