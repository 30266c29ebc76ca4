"""Files that are whole or absent: written under another name, flushed to disk, then renamed.

Those that a later command relies on are also known for damaged when one bit of them changes: the checksum of each is
beside it, in `.checksums`. That is for text alone: checkpoints (Zip), weights (safetensors) and cohorts (Zarr) carry
checksums of their own. A file without one, of an earlier version or made by hand, is read as it is.

Every room imports this file, and so does `--help`: what takes long to import is imported where it is needed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from compseg.errors import CompsegError, naming, reading, require

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
CHECKSUMS = ".checksums"
TRIES = 3  # to read a file that another process is replacing


# What `atomic_open` calls a file until it is whole.
_PARTIAL = re.compile(r"\..*\.[0-9a-f]{32}\.partial", re.DOTALL)
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def why_no_file(path: Path) -> str:
    """Why a path is no file to read, in a few words; empty where it is one. It is not opened: a pipe would wait."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:  # the latter for a null byte
        return (getattr(error, "strerror", None) or str(error)).lower()
    if stat.S_ISREG(mode):
        return ""
    return "is a folder" if stat.S_ISDIR(mode) else "is a pipe, a socket or a device"


def require_writable(folder: Path, key: str) -> None:
    """Refuse a folder that cannot be written to, or be made, before hours of work; `key` is what the user may set.

    Raises:
        CompsegError: It is read-only.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    require(
        there.is_dir() and os.access(there, os.W_OK | os.X_OK),
        f"{there}: cannot be written to; check the permissions, or give another {key}=",
    )


@contextmanager
def atomic_open(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears at `path` only if the block ends without an error.

    Missing folders are made. The temporary name is unique, so that ranks may write the same file at once: the last one
    wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place: a rename is atomic within one file system alone.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with naming(path), _locked(temporary):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                # Before the rename: after a loss of power the new name could be there without the bytes.
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        if str(error.filename) == str(temporary):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        with suppress(OSError):  # where the name is too long or the disk read-only, this fails like the rest
            temporary.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make a file and hold its lock, which ends with the process: so a killed process's file is told from another."""
    with path.open("xb") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            removed = not os.fstat(file.fileno()).st_nlink  # as a killed process's, before it was locked
        # Windows and some network file systems have no such locks. What is left there stays.
        except (ImportError, OSError):
            file.close()
            removed = False
        if not removed:
            yield
            return
    with _locked(path):
        yield


def remove_partials(folder: Path) -> None:
    """Remove the files that killed processes have left half-written in a folder and in those below it."""
    for left in filter(lambda path: _PARTIAL.fullmatch(path.name), folder.rglob(".*.partial")):
        with suppress(ImportError, OSError), left.open("rb") as file:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while somebody writes it
            left.unlink()


def atomic_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes."""
    with atomic_open(path) as file:
        file.write(content)


def atomic_text(path: str | Path, text: str) -> None:
    r"""Write text as UTF-8 with its line ends unchanged; a byte of a file's name that is no UTF-8 as `\udcff`."""
    atomic_bytes(path, text.encode(errors="backslashreplace"))


def atomic_json(path: str | Path, plain: Any) -> None:
    """Write plain values as indented JSON."""
    atomic_text(path, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path, kind: type[T], fix: str) -> T:
    """Read plain values from JSON.

    Args:
        path: Of the file.
        kind: `dict` or `list`: what the outermost value has to be.
        fix: What to do where it is damaged.

    Raises:
        CompsegError: It is damaged, or holds something else.
    """
    with reading(path, fix):
        plain = json.loads(read_checked(path, fix).decode())
        if not isinstance(plain, kind):
            raise TypeError(f"expected a {kind.__name__}, found {plain!r:.40}")
        return plain


def csv_text(columns: Sequence[Any], rows: Iterable[Sequence[Any]] = ()) -> str:
    """A table with a header, commas and plain line ends; without rows also a line to append.

    A text that a spreadsheet would compute (`=1+1`) gets an apostrophe before it, which `from_cell` takes away.
    """
    return "".join(map(_line, (columns, *rows)))


def _line(values: Sequence[Any]) -> str:
    text = io.StringIO()
    # With the end CRLF, for which the module quotes both characters in a cell; we end lines with LF.
    csv.writer(text, lineterminator="\r\n").writerow(map(_as_text, values))
    return text.getvalue().removesuffix("\r\n") + "\n"


def _as_text(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _begins_formula(value) and not _is_number(value) else value


def from_cell(cell: str) -> str:
    """The text that `csv_text` has written a cell for."""
    return cell[1:] if cell.startswith("'") and _begins_formula(cell) else cell


def _begins_formula(text: str) -> bool:
    # Those with apostrophes get one more, or the text `'=1` would be read as `=1`.
    return text.lstrip("'").startswith(_FORMULA)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def atomic_npy(path: str | Path, array: NDArray[Any]) -> None:
    """Write an array as .npy."""
    import numpy as np

    with atomic_open(path) as file:
        # An array of objects would be a pickle, which runs code when it is read.
        np.save(file, array, allow_pickle=False)


def atomic_torch(path: str | Path, state: Any) -> None:
    """Write what `torch.save` takes, a state dict for example."""
    import torch

    with atomic_open(path) as file:
        torch.save(state, file)


def write_checked(path: str | Path, content: str | bytes) -> None:
    """Write a file atomically, so that `read_checked` finds damage.

    Its checksum is written first, together with that of the content which it replaces: whenever the process is killed,
    what is there is known to be sound.
    """
    path, content = Path(path), content.encode(errors="backslashreplace") if isinstance(content, str) else content
    before: list[str] = []
    # What is damaged already must not become sound by this.
    with suppress(FileNotFoundError, CompsegError):
        before = [_digest(read_checked(path))]
    atomic_bytes(checksum_beside(path), "\n".join([*before, _digest(content), ""]).encode())
    atomic_bytes(path, content)


def checked_json(path: str | Path, plain: Any) -> None:
    """Write plain values as `atomic_json` does, and their checksum."""
    write_checked(path, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def read_checked(path: str | Path, fix: str = "restore it from a copy") -> bytes:
    """The content of a file, compared with its checksum if it has one; `fix` is what to do where it is damaged.

    Raises:
        CompsegError: It is not what was written.
        FileNotFoundError: There is none.
    """
    path = Path(path)
    for _ in range(TRIES):
        content, beside = path.read_bytes(), checksum_beside(path)
        if not beside.is_file() or _digest(content).encode() in beside.read_bytes().split():
            return content
    raise CompsegError(
        f"{path}: damaged or changed since it was written (checksum); {fix}; or delete {beside} to have it read as it "
        "is"
    )


def checksum_beside(path: Path) -> Path:
    """Where the checksum of a file is."""
    # Under another name, or a search for the file itself would find it too.
    return path.parent / CHECKSUMS / f"{path.name}.sha256"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
