"""The manifest: a CSV with one row for each sample. Paths in it are relative to the manifest."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compseg.errors import CompsegError, closest
from compseg.file_names import file_name, same_file
from compseg.files import from_cell, why_no_file
from compseg.samples import SPLITS, SampleInfo, identifier

FILES = ("image", "tissue", "truth", "reference")
COLUMNS = ("sample", "label", "class", "split", "group", "patient", "position", *FILES)
SYNONYMS = {"thumbnail": "reference"}  # other names of columns
# Spreadsheets and data frames write labels as 1.0 where some are missing.
LABELS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "disease": 1, "healthy": 0}

Classes = Mapping[str, int | None]


@dataclass(frozen=True)
class Row:
    """A row of the manifest.

    Attributes:
        info: What is known without its pixels.
        files: Path of `image` and, where given, `tissue`, `truth` and `reference` (a thumbnail).
        position: In the grid of a tissue array, such as `A1`; empty where it is none.
    """

    info: SampleInfo
    files: dict[str, Path]
    position: str = ""


def read_manifest(path: str | Path, classes: Classes | None = None, labelled: bool = True) -> list[Row]:
    """Read and check a manifest; no image is opened, but every named file must exist.

    Args:
        path: CSV in UTF-8 (with or without a byte order mark), separated by commas, semicolons or tabs. Columns:
            `sample`, `image`, and `label` (0/1, healthy/disease) or `class`; optional `split`, `group`, `patient`,
            `position`, `tissue`, `truth`, `reference` or `thumbnail` (a picture for people). Other columns are ignored,
            unless they look like a misspelt one.
        classes: Label of each word in `class`; None leaves samples of that class out. Without it `label` decides.
        labelled: Whether every sample must have a label. New images to predict need none; theirs is then 0.

    Returns:
        A row for each sample, in the order of the file.

    Raises:
        CompsegError: Names the line that is wrong.
    """
    path = Path(path)
    if problem := why_no_file(path):
        raise CompsegError(
            f"{path!s:.200}: cannot be read ({problem}); expected a manifest, a CSV with sample,image,label"
        )
    lines = _lines(path)
    if not lines:
        raise CompsegError(f"{path}: empty; expected a header with sample,image,label")
    columns = _columns(path, lines[0][1], labelled)
    rows = [
        row
        for number, cells in lines[1:]
        if (row := _row(path, number, _cells(path, number, columns, cells), classes, labelled)) is not None
    ]
    seen: dict[str, str] = {}
    for row in rows:
        name = row.info.name
        other = seen.setdefault(same_file(name), name)
        if other is not name:
            raise CompsegError(
                f"{path}: sample {name} ({row.info.origin}) has the name of another sample, {other}; rename one"
            )
    if not rows:
        raise CompsegError(
            f"{path}: no samples; expected a row for each below the header (classes mapped to null are left out)"
        )
    return rows


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, with their numbers; cells without surrounding space."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CompsegError(
            f"{path}: cannot be read ({error.strerror}); expected a manifest, a CSV with sample,image,label"
        ) from error
    except UnicodeDecodeError as error:
        raise CompsegError(f"{path}: not UTF-8 (byte {error.start}); save it as CSV UTF-8") from error
    header = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets of other countries write semicolons
    # Strict, or a quote that is never closed would take the rest of the file into one cell without an error.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        stripped = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise CompsegError(f"{path}: line {reader.line_num}: {error}; check the quotes") from error
    return [(number, cells) for number, cells in stripped if any(cells)]


def _columns(path: Path, header: list[str], labelled: bool) -> list[str]:
    columns = [SYNONYMS.get(name.lower(), name.lower()) for name in header]
    for name in COLUMNS:
        if columns.count(name) > 1:
            raise CompsegError(f"{path}: column {name} comes {columns.count(name)} times; keep one")
    absent = [name for name in COLUMNS if name not in columns]
    for name in columns:
        # A misspelt `patient` would silently divide patients between splits.
        near = difflib.get_close_matches(name, absent, 1, cutoff=0.8) if name not in COLUMNS else []
        if near:
            raise CompsegError(f"{path}: unknown column {name}; did you mean '{near[0]}'? rename it")
    for name in ("sample", "image"):
        if name in absent:
            raise CompsegError(f"{path}: no column {name}; expected sample,image,label, found {','.join(columns)}")
    if labelled and {"label", "class"} <= set(absent):
        raise CompsegError(f"{path}: neither column label nor class; add label with 0 (healthy) or 1 (disease)")
    return columns


def _cells(path: Path, number: int, columns: list[str], cells: list[str]) -> dict[str, str]:
    # Empty cells beyond the header are let pass: they name nothing that could be lost.
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        raise CompsegError(
            f"{path}: line {number}: {len(cells)} cells, the header has {len(columns)}; "
            "add what is missing, quote cells that hold commas"
        )
    given = dict(zip(columns, cells, strict=False))
    return {name: given.get(name, "") for name in COLUMNS}


def _row(path: Path, number: int, cells: dict[str, str], classes: Classes | None, labelled: bool) -> Row | None:
    """A checked row; None if its class is left out."""
    where = f"{path}: line {number}"
    cells = {column: cell if column in FILES else from_cell(cell) for column, cell in cells.items()}
    if not any(map(str.isalnum, cells["sample"])):
        raise CompsegError(f"{where}: sample '{cells['sample']}' is no name; use letters, digits, '.', '_' and '-'")
    name = file_name(cells["sample"])
    where += f", sample {name}"
    label = _label(where, cells, classes) if labelled else 0
    if label is None:
        return None
    split = identifier(cells["split"]).lower()
    if split not in ("", *SPLITS):
        hint = closest(split, SPLITS, "expected")
        raise CompsegError(f"{where}: split '{cells['split']}'; {hint} (empty lets the configuration split)")
    if not identifier(cells["image"]):
        raise CompsegError(f"{where}: no image; give its path relative to the manifest")
    given = {column: path.parent / cells[column] for column in FILES if cells[column]}
    # Tables of R and pandas write NA where there is no mask.
    files = {column: file for column, file in given.items() if identifier(cells[column]) or file.is_file()}
    for column, file in files.items():
        is_zarr = column == "image" and file.suffix.lower() == ".zarr" and file.is_dir()
        if (problem := why_no_file(file)) and not is_zarr:
            raise CompsegError(f"{where}: {column} {file!s:.200} {problem}; paths are relative to the manifest")
    info = SampleInfo(name, label, cells["class"], split, cells["group"], cells["patient"], origin=cells["image"])
    return Row(info, files, cells["position"].upper())


def _label(where: str, cells: dict[str, str], classes: Classes | None) -> int | None:
    """The label in the row, or that of its class; None if the class is left out."""
    given = LABELS.get(cells["label"].lower())
    if given is None and identifier(cells["label"]):
        hint = closest(cells["label"], ("healthy", "disease", "0", "1"), "expected")
        raise CompsegError(f"{where}: label '{cells['label']}'; {hint}")
    word = cells["class"]
    if classes is None:
        if given is None:
            raise CompsegError(
                f"{where}: no label; fill in 0 or 1, or map its class: source.classes={{'{word}': 1, ...}}"
            )
        return given
    if word not in classes:
        hint = closest(word, classes, "classes")
        raise CompsegError(f"{where}: class '{word}' is not in source.classes; {hint} (null leaves a class out)")
    mapped = classes[word]
    if given is not None and mapped is not None and given != mapped:
        raise CompsegError(f"{where}: label {given}, but source.classes maps {word} to {mapped}; correct one of them")
    return mapped
