import numpy as np
import pytest

from compseg.errors import CompsegError
from compseg.samples import Channels
from compseg.sources.axis import read_axis


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


WAVENUMBERS = Channels(3, (1000.25, 998.5, 996.0), "cm-1")
FILES = {
    "comma is decimal": "wavenumber_per_cm\n1000,25\n998,5\n996\n",
    "comma is decimal, no header": "1000,25\n998,5\n996\n",
    "comma is decimal in every line": "wavenumber_per_cm\n1000,25\n998,5\n996,0\n",
    "quoted": 'wavenumber_per_cm\n"1000,25"\n"998,5"\n"996"\n',
    "row numbers": "index,wavenumber_per_cm\n0,1000.25\n1,998.5\n2,996\n",
    "row numbers behind": "wavenumber_per_cm,channel\n1000.25,1\n998.5,2\n996,3\n",
    "row numbers without a name": ",wavenumber_per_cm\n0,1000.25\n1,998.5\n2,996\n",
    "row numbers, no header": "0,1000.25\n1,998.5\n2,996\n",
    "row numbers, whole numbers": "0,1000\n1,998\n2,996\n",
    "names of bands": "band,wavenumber_per_cm\namide,1000.25\nb,998.5\nc,996\n",
    "a spectrum": "wavenumber_per_cm,absorbance\n1000.25,.5\n998.5,.4\n996,.6\n",
    "semicolons": "index;wavenumber_per_cm\n0;1000,25\n1;998,5\n2;996\n",
    "semicolons, points": "index;wavenumber_per_cm\n0;1000.25\n1;998.5\n2;996\n",
    "tabs": "index\twavenumber_per_cm\n0\t1000,25\n1\t998,5\n2\t996\n",
    "empty cells": "wavenumber_per_cm,,\n1000.25,,\n998.5,,\n996,\n",
    "one line": "1000.25,998.5,996\n",
    "one line, semicolons": "1000,25;998,5;996\n",
    "blanks": "\n wavenumber_per_cm \n 1000.25\n\n998.5 \n996",
    "exponents": "wavenumber_per_cm\n1.00025e+03\n9.985e+02\n9.96e+02\n",
    "carriage returns": "wavenumber_per_cm\r\n1000.25\r\n998.5\r\n996\r\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_axis_files_as_tools_write_them(tmp_path, text, encoding):
    (tmp_path / "axis.csv").write_text(text, encoding=encoding, newline="")
    channels = read_axis(tmp_path / "axis.csv", "" if "per_cm" in text else "cm-1")
    whole = Channels(3, (1000.0, 998.0, 996.0), "cm-1")
    assert channels == (whole if text == FILES["row numbers, whole numbers"] else WAVENUMBERS)


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
        ("a,b\n5,1\n6,3\n", r"2 columns \(a, b\); keep the one with the position of each channel"),
        ("wavelength_nm,wavenumber_per_cm\n5,1\n6,3\n", "2 columns"),
        ("1000.5,3.5\n1001.5,4.5\n", r"2 columns \(no header\)"),
        ("1,000.25\n1,002.25\n", "2 columns"),  # commas between thousands
        ("1000.5\n1001.5,7,8\n", "lines of 1 cells and of other numbers"),
        ("w\n1 2\n3 4\n", "'1 2' is no number"),
        ('w\n"1\n', "cannot be read as an axis"),
    ],
)
def test_errors(tmp_path, text, words):
    path = tmp_path / "axis.csv"
    path.write_text(text)
    with pytest.raises(CompsegError, match=words):
        read_axis(path)


@pytest.mark.parametrize("axis", [[1, True], [1, None], [[1, 2], [3, 4]]])
def test_lists_of_something_else(axis):
    with pytest.raises(CompsegError, match=r"source\.axis: expected a list of numbers or of names"):
        read_axis(axis)


def test_a_table_or_a_pickle_is_no_axis(tmp_path):
    for array in (np.array([[0, 1000.0], [1, 998.0]]), np.array(1.0), np.array(["a", 1], object)):
        np.save(tmp_path / "axis.npy", array)
        with pytest.raises(CompsegError, match="cannot be read as an axis"):
            read_axis(tmp_path / "axis.npy")


def test_missing_file(tmp_path):
    with pytest.raises(CompsegError, match="cannot be read as an axis"):
        read_axis(tmp_path / "none.csv")
