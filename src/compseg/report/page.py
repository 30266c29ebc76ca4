"""report.html: one file that needs nothing else, with the verdict first."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from PIL import Image as Pillow

from compseg.evaluation.sample_map import SampleMap
from compseg.evaluation.shortcuts import Shortcuts
from compseg.evaluation.tables import COLUMNS, sample_row
from compseg.files import atomic_bytes, atomic_text
from compseg.inference.threshold import Threshold
from compseg.plots.overlay import RGB, resize
from compseg.report import figures as draw
from compseg.report.panels import caption, chosen, colour_ceiling, panels, ranked, spread
from compseg.report.verdict import verdict_on

TILE = 128
SHOWN = 48


@dataclass(frozen=True)
class Tile:
    """A sample in the gallery: name, class colour, caption and pictures by title, as data URIs."""

    name: str
    label: int
    caption: str
    pictures: dict[str, str]


def write_report(
    path: Path,
    *,
    title: str,
    metrics: Mapping[str, float],
    threshold: Threshold,
    test_maps: Sequence[SampleMap],
    val_maps: Sequence[SampleMap],
    shortcuts: Shortcuts,
    history: Mapping[str, Sequence[float]],
    references: Mapping[str, RGB],
    spectra: draw.Spectra | None,
    config_text: str,
    environment: Mapping[str, Any],
) -> Path:
    """Write the page, and its figures as PNG into `figures/` beside it.

    Args:
        path: Of the page; it and the figures are written atomically.
        title: Heading, for example the name of the run.
        metrics: Figures of merit as `compseg.evaluation.tables` makes them.
        threshold: The threshold that they rest on.
        test_maps: Test samples with their maps, at least one.
        val_maps: Validation samples with theirs, to compare groups.
        shortcuts: Signs that the maps live on something else than the region.
        history: Columns of `history.csv` (`read_history`); may be empty.
        references: Reference pictures `(h, w, 3)` uint8 by sample name, where there are any.
        spectra: Spectra of two components, or None to leave them out.
        config_text: The resolved configuration as YAML.
        environment: Versions, device and the like; nested values are shown as JSON.

    Returns:
        `path`.
    """
    drawn = draw_figures(threshold, test_maps, val_maps, history, references, spectra)
    save_figures(drawn, path.parent / "figures")
    gallery = ranked(test_maps, threshold)
    page = Environment(loader=PackageLoader("compseg.report", ""), autoescape=True).get_template("template.html")
    text = page.render(
        title=title,
        verdict=verdict_on(metrics, threshold, test_maps, shortcuts),
        chosen=_tiles(chosen(test_maps, threshold), test_maps, threshold, references),
        shown=_tiles(spread(gallery, SHOWN), test_maps, threshold, references),
        total=len(test_maps),
        ceiling=colour_ceiling(test_maps, threshold),
        figures={name: _svg(figure) for name, figure in drawn.items() if name != "gallery"},
        columns=COLUMNS,
        rows=[sample_row(item, threshold) for item in gallery],
        metrics=metrics,
        config_text=config_text,
        environment={key: _plain(value) for key, value in environment.items()},
    )
    atomic_text(path, text)
    return path


def draw_figures(
    threshold: Threshold,
    test_maps: Sequence[SampleMap],
    val_maps: Sequence[SampleMap],
    history: Mapping[str, Sequence[float]],
    references: Mapping[str, RGB],
    spectra: draw.Spectra | None,
) -> dict[str, Figure]:
    """Every figure of the report by file name; what there is no data for is left out."""
    drawn = {
        "gallery": draw.gallery(chosen(test_maps, threshold), threshold, references),
        "roc": draw.roc(test_maps, threshold),
        "threshold": draw.threshold_curves(test_maps, threshold),
        "activations": draw.activation_histogram(test_maps, threshold),
        "groups": draw.group_activation([*val_maps, *test_maps]),
    }
    if history:
        drawn["learning"] = draw.learning_curves(history)
    if spectra is not None:
        drawn["spectra"] = draw.spectra(spectra)
    return drawn


def save_figures(drawn: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure as `NAME.png`, for slides and papers."""
    for name, figure in drawn.items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=160)
        atomic_bytes(folder / f"{name}.png", content.getvalue())


def read_history(path: Path) -> dict[str, list[float]]:
    """Columns of a `history.csv`; empty cells become NaN, and a file that is not there no columns."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key] or "nan") for row in rows] for key in (rows[0] if rows else {})}


def _tiles(
    items: Iterable[SampleMap], everyone: Sequence[SampleMap], threshold: Threshold, references: Mapping[str, RGB]
) -> list[Tile]:
    ceiling = colour_ceiling(everyone, threshold)
    return [
        Tile(
            item.info.name,
            item.info.label,
            caption(item, threshold),
            {
                name: photo_uri(picture) if name == "reference" else map_uri(picture)
                for name, picture in panels(item, threshold, references.get(item.info.name), ceiling).items()
            },
        )
        for item in items
    ]


def map_uri(picture: RGB) -> str:
    """A map `(h, w, 3)` as an indexed PNG of at most 128 pixels a side, in a data URI."""
    # Few colours and hard edges: an indexed PNG, never a JPEG, and no pixel between two measured ones.
    scale = max(*picture.shape[:2], TILE) / TILE
    small = resize(picture, tuple(round(side / scale) for side in picture.shape[:2]))
    return _encode(Pillow.fromarray(small).quantize(256, dither=Pillow.Dither.NONE), "png", optimize=True)


def photo_uri(picture: RGB) -> str:
    """A picture `(h, w, 3)` as a JPEG of at most 128 pixels a side, in a data URI."""
    photo = Pillow.fromarray(picture)
    photo.thumbnail((TILE, TILE), Pillow.Resampling.LANCZOS)
    return _encode(photo, "jpeg", quality=88)


def _encode(picture: Pillow.Image, kind: str, **options: Any) -> str:
    content = io.BytesIO()
    picture.save(content, format=kind, **options)
    return _uri(f"image/{kind}", content.getvalue())


def _svg(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="svg", dpi=150, metadata={"Date": None})
    return _uri("image/svg+xml", content.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=1, default=str)
