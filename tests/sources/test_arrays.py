"""Files of numpy and MATLAB that lead elsewhere or ask for more than there is."""

import zipfile
import zlib
from functools import partial

import numpy as np
import pytest
import scipy.io

from compseg.errors import CompsegError
from compseg.sources import readers
from compseg.sources.readers import read_file, read_image

h5py = pytest.importorskip("h5py")

CUBE = np.random.default_rng(0).random((4, 5, 6))
HUGE = 2**21  # rows and columns: 32 TiB of float64


def mat73(fill):
    def save(path):
        with h5py.File(path, "w", userblock_size=512) as file:
            fill(file, path.parent)
        with path.open("r+b") as file:  # the header that MATLAB puts before the HDF5
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")

    return save


def secret(folder):
    with h5py.File(folder / "secret.h5", "w") as file:
        file["data"] = CUBE
    return folder / "secret.h5"


def external_link(file, folder):
    file["cube"] = h5py.ExternalLink(str(secret(folder)), "data")


def soft_link(file, folder):
    external_link(file, folder)
    file["soft"] = h5py.SoftLink("/cube")


def external_storage(file, folder):
    (folder / "secret.bin").write_bytes(bytes(CUBE.nbytes))
    file.create_dataset("cube", CUBE.shape, "f8", external=[(str(folder / "secret.bin"), 0, CUBE.nbytes)])


def virtual(file, folder):
    layout = h5py.VirtualLayout(CUBE.shape, "f8")
    layout[:] = h5py.VirtualSource(str(secret(folder)), "data", CUBE.shape)
    file.create_virtual_dataset("cube", layout)


def never_written(file, _):
    file.create_dataset("cube", (HUGE, HUGE), "f8", chunks=(64, 64))


def barely_written(file, _):
    never_written(file, _)
    file["cube"][0, 0] = 1


def only_text(file, _):
    file["note"] = np.array([[104], [105]], np.uint16)
    file["note"].attrs["MATLAB_class"] = np.bytes_("char")


def huge_npy(path):
    np.save(path, CUBE)
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2097152, 2097152), }".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + CUBE.tobytes())


def huge_npz(path):
    """An archive whose directory promises 4 EiB."""
    np.savez(path, cube=CUBE)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        info = file.infolist()[0]
        info.file_size = 2**62
        file._didModify = True


def huge_mat(path):
    """A compressed variable whose header names a huge size."""
    scipy.io.savemat(path, {"cube": CUBE}, do_compression=True)
    content = path.read_bytes()
    body = bytearray(zlib.decompress(content[136:]))
    place = body.index(np.array([4, 5, 6], np.int32).tobytes())
    body[place : place + 8] = np.array([HUGE, HUGE], np.int32).tobytes()
    packed = zlib.compress(bytes(body))
    path.write_bytes(content[:132] + len(packed).to_bytes(4, "little") + packed)


HOSTILE = {
    "external link": ("a.mat", mat73(external_link), None, "which variable"),
    "external link, asked for": ("a.mat", mat73(external_link), "cube", "cube is a link to another place or file"),
    "soft link to it": ("a.mat", mat73(soft_link), "soft", "soft is a link to another place or file"),
    "external storage": ("a.mat", mat73(external_storage), None, "/cube lies in another file; save the array itself"),
    "virtual": ("a.mat", mat73(virtual), None, "/cube lies in another file"),
    "never written": ("a.mat", mat73(never_written), None, "holds no data"),
    "barely written": ("a.mat", mat73(barely_written), None, r"\(2097152, 2097152\) float64 takes 3.28e\+04 GiB"),
    "text": ("a.mat", mat73(only_text), None, "it holds no array"),
    "huge .npy": ("a.npy", huge_npy, None, "cannot be read as .npy"),
    "huge .npz": ("a.npz", huge_npz, None, "GiB of memory"),
    "huge .mat": ("a.mat", huge_mat, None, "takes 1.97e"),
    "archive called .npy": ("a.npy", lambda path: np.savez(path.open("wb"), cube=CUBE), None, "cannot be read as .npy"),
    "pickle": ("a.npy", lambda path: np.save(path, np.array([CUBE, 1], object)), None, "cannot be read as .npy"),
}


@pytest.mark.parametrize(("name", "save", "key", "words"), HOSTILE.values(), ids=HOSTILE)
def test_files_that_lead_elsewhere_or_ask_for_too_much(tmp_path, name, save, key, words):
    save(tmp_path / name)
    for read in (lambda path: read_image(path, key), *([partial(read_file, mapped=True)] if key is None else [])):
        with pytest.raises(CompsegError, match=words) as raised:
            read(tmp_path / name)
        assert "\n" not in str(raised.value)
        assert str(tmp_path / name) in str(raised.value)


def test_out_of_memory_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    def reader(path, key):
        raise MemoryError

    monkeypatch.setitem(readers.READERS, ".npz", reader)
    with pytest.raises(CompsegError, match=r"a\.npz: not enough memory to read it") as raised:
        read_image(tmp_path / "a.npz")
    assert "save the file again" not in str(raised.value)


def test_text_beside_an_image_needs_no_key(tmp_path):
    def both(file, folder):
        only_text(file, folder)
        file["cube"] = CUBE.T

    mat73(both)(tmp_path / "a.mat")
    np.testing.assert_array_equal(read_image(tmp_path / "a.mat"), CUBE)
