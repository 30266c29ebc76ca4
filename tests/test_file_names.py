"""Names become file names: fit for any file system, stable, and no two the same."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compseg.errors import CompsegError
from compseg.file_names import MOST_BYTES, file_name, file_names, printable, same_file

ENDINGS = (".npy", ".png", "_mask.png")
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in "0123456789¹²³")}

# Any text, surrogates included, which is what undecodable bytes of a file's name become; and names made to collide.
texts = st.text(st.characters(), max_size=200)
near = st.text("aA_ .-/é\u0301", max_size=6)
hostile = st.sampled_from(["con", "CON.txt", "..", ".", "", "a_mask", "a_mask_mask", "zarr.json", "a" * 300, "ß", "SS"])
names = texts | near | hostile

ORDINARY = ["a", "A_1", "S2-b.03", "日本語", "हिन्दी", "Zürich", "1+1", "falcon", "a.npy", "com10", "x" * MOST_BYTES]
CHANGED = {
    "A 1": "A_1",
    " a ": "a",
    "../../x": "x",
    "/abs/x": "abs_x",
    "a/b": "a_b",
    "a\\b": "a_b",
    "..": "unnamed",
    "": "unnamed",
    ".hidden": "hidden",
    "a.": "a",
    "con": "con_",
    "Nul.txt": "Nul_.txt",
    "zarr.json": "zarr_.json",
    "<script>": "script_",
    "a\nb": "a_b",
    "=1+1": "1+1",
    r"$\frac{$": "frac__",
    "a\udcffb": "a_b",
    "e\u0301": "é",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_stays_as_it_is(name):
    assert file_name(name) == name


@pytest.mark.parametrize(("name", "file"), CHANGED.items())
def test_another_name_becomes_one(name, file):
    assert file_name(name) == file


@given(names)
def test_a_file_name_fits_any_file_system(name):
    file = file_name(name)
    assert 1 <= len(file.encode()) <= MOST_BYTES
    assert not file.startswith((".", "_"))
    assert not file.endswith((".", " "))
    assert file.partition(".")[0].lower() not in RESERVED
    assert all(char in "._-+" or unicodedata.category(char)[0] in "LMN" for char in file)
    assert unicodedata.is_normalized("NFC", file)
    assert file_name(file) == file


@given(st.lists(names, unique=True, max_size=8), st.sampled_from([("",), ENDINGS]), st.randoms())
def test_no_two_files_are_the_same_and_order_does_not_matter(names, endings, random):
    found = file_names(names, endings)
    assert list(found) == names
    files = [same_file(file + ending) for file in found.values() for ending in endings]
    assert len(set(files)) == len(files)
    assert all(file_name(file) == file for file in found.values())
    assert file_names(random.sample(names, len(names)), endings) == found


def test_who_keeps_a_name_that_two_would_have():
    found = file_names(["A 1", "a_1", "A_1", "b", "a_mask", "a"], ENDINGS)
    kept = {name for name, file in found.items() if name == file}
    assert kept == {"A_1", "a", "b"}
    assert file_names(["A 1"]) == {"A 1": "A_1"}


def test_names_that_end_in_anothers_digits_change_nothing():
    made = ["A_1"]
    for _ in range(5):
        made.append(file_names(["A 1", *made])["A 1"])
    files = list(file_names(["A 1", *made]).values())
    assert len(set(files)) == len(files) == 7


def test_a_name_that_comes_twice_is_refused():
    with pytest.raises(CompsegError, match="comes twice"):
        file_names(["b", "a", "a"])


@given(texts)
def test_what_is_printed_is_one_line_that_obeys_nothing(name):
    shown = printable(name)
    assert shown.isprintable()
    shown.encode()
    assert shown == name or not name.isprintable()
