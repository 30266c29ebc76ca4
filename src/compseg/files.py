"""Files that are whole or absent: written under another name, flushed to disk, then renamed.

Every room imports this file, and so does `--help`: what takes long to import is imported where it is needed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
        with temporary.open("xb") as file:
            yield file
            file.flush()
            # Before the rename: after a loss of power the new name could be there without the bytes.
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes."""
    with atomic_open(path) as file:
        file.write(content)


def atomic_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8 with its line ends unchanged."""
    atomic_bytes(path, text.encode())


def atomic_json(path: str | Path, plain: Any) -> None:
    """Write plain values as indented JSON."""
    atomic_text(path, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a header, commas and plain line ends."""
    text = io.StringIO()
    # By default the csv module ends lines with CRLF.
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


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
