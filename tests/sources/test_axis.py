import numpy as np
import pytest

from compseg.errors import CompsegError
from compseg.samples import Channels
from compseg.sources.images import read_axis


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("wavenumber_per_cm\n", "cm-1"),
        ("wavenumber (cm-1)\n", "cm-1"),
        ("wavelength [nm]\n", "nm"),
        ("wavelength_nm\n", "nm"),
        ("wavelength\n", ""),
        ("", ""),
    ],
)
def test_header_gives_the_unit(tmp_path, header, unit):
    path = tmp_path / "axis.csv"
    path.write_text(f"{header}1800\n1700.5\n\n1600\n", encoding="utf-8-sig")
    assert read_axis(path) == Channels(3, (1800.0, 1700.5, 1600.0), unit)
    assert read_axis(str(path), "1/cm").unit == "1/cm"


def test_npy_and_lists(tmp_path):
    np.save(tmp_path / "axis.npy", np.array([[400.0, 500.0]]))
    assert read_axis(tmp_path / "axis.npy", "nm") == Channels(2, (400.0, 500.0), "nm")
    assert read_axis([400, 500], "nm") == Channels(2, (400.0, 500.0), "nm")
    assert read_axis(["red", "infrared"]) == Channels(2, names=("red", "infrared"))
    assert read_axis(["red", 2]) == Channels(2, names=("red", "2"))  # a name may look like a number


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("w\n1\n3\n2\n", "neither rise nor fall"),
        ("w\n1\n1\n", "neither rise nor fall"),
        ("w\n1\nnan\n", "expected a finite number for each channel"),
        ("w\n", "expected a finite number for each channel"),
        ("", "expected a finite number for each channel"),
        ("w\n1\ntwo\n", "line 3: 'two' is no number"),
    ],
)
def test_errors(tmp_path, text, words):
    path = tmp_path / "axis.csv"
    path.write_text(text)
    with pytest.raises(CompsegError, match=words):
        read_axis(path)


def test_missing_file(tmp_path):
    with pytest.raises(CompsegError, match="cannot be read as an axis"):
        read_axis(tmp_path / "none.csv")
