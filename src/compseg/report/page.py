"""report.html: one file that needs nothing else, with the verdict first."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image as Pillow

from compseg.evaluation.curves import SampleMap
from compseg.evaluation.shortcuts import Shortcuts
from compseg.evaluation.tables import COLUMNS, sample_row
from compseg.files import atomic_bytes, atomic_text
from compseg.inference.threshold import Threshold
from compseg.plots.figures import Spectra
from compseg.plots.overlay import RGB, resize
from compseg.plots.style import file_of
from compseg.report.pictures import chosen, colour_vmax, draw_figures, ranked, spread, tiles_of
from compseg.report.verdict import verdict_on
from compseg.run_folder import read_history

SIDE = 128  # pixels of a picture in the gallery, at most
SHOWN = 48  # samples; more would make the page too large to send


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
    thumbnails: Mapping[str, RGB],
    spectra: Spectra | None,
    config_text: str,
    environment: Mapping[str, Any],
    samples: str = "its test split",
) -> Path:
    """Write the page, and its pictures as PNG into `figures/` beside it, for slides and papers.

    Args:
        path: Of the page; it and the pictures are written atomically.
        title: Heading, for example the name of the run.
        metrics: As `compseg.evaluation.tables` makes them.
        threshold: The threshold that they rest on.
        test_maps: Test samples with their maps, at least one.
        val_maps: Validation samples with theirs, to compare groups.
        shortcuts: Signs that the maps follow something other than the region.
        history: Columns of `history.csv` (`history_columns`); may be empty.
        thumbnails: Pictures for people, `(h, w, 3)` uint8, by sample name, where there are any.
        spectra: Spectra of two components, or None for no such picture.
        config_text: The resolved configuration as YAML.
        environment: Versions, device and the like; nested values are shown as JSON.
        samples: What was judged, in words.

    Returns:
        `path`.
    """
    drawn = draw_figures(threshold, test_maps, val_maps, history, thumbnails, spectra)
    for name, figure in drawn.items():
        atomic_bytes(path.parent / "figures" / f"{name}.png", file_of(figure))
    order, vmax = ranked(test_maps, threshold), colour_vmax(test_maps, threshold)

    def embedded(maps: Sequence[SampleMap]) -> list[dict[str, Any]]:
        tiles = tiles_of(maps, threshold, thumbnails, vmax)
        return [
            {
                "name": tile.name,
                "label": item.info.label,
                "caption": tile.caption,
                "pictures": {
                    kind: photo_uri(picture) if kind == "thumbnail" else map_uri(picture)
                    for kind, picture in tile.pictures.items()
                },
            }
            for item, tile in zip(maps, tiles, strict=True)
        ]

    # Escaped, because names of samples and the configuration are what users type.
    page = Environment(loader=PackageLoader("compseg.report", ""), autoescape=True).get_template("template.html")
    text = page.render(
        title=title,
        samples=samples,
        verdict=verdict_on(metrics, threshold, test_maps, shortcuts),
        chosen=embedded(chosen(test_maps, threshold)),
        shown=embedded(spread(order, SHOWN)),
        total=len(test_maps),
        vmax=vmax,
        figures={
            # Only sampled spectra are pixels in these, at 150 dpi; all else is lines.
            name: _uri("image/svg+xml", file_of(figure, "svg", 150))
            for name, figure in drawn.items()
            if name != "gallery"  # it is there in HTML
        },
        columns=COLUMNS,
        rows=[sample_row(item, threshold) for item in order],
        metrics=metrics,
        config_text=config_text,
        environment={
            key: value if isinstance(value, str) else json.dumps(value, indent=1, default=str)
            for key, value in environment.items()
        },
    )
    atomic_text(path, text)
    return path


def history_columns(run: Path) -> dict[str, list[float]]:
    """Columns of a run's `history.csv`; empty cells become NaN, and a missing file no columns."""
    rows = read_history(run)
    return {key: [float(row[key] or "nan") for row in rows] for key in (rows[0] if rows else {})}


def map_uri(picture: RGB) -> str:
    """A map `(h, w, 3)` as an indexed PNG of at most 128 pixels a side, in a data URI."""
    # Few colours and hard edges: an indexed PNG, never a JPEG, and no pixel between two measured ones.
    scale = max(*picture.shape[:2], SIDE) / SIDE
    small = resize(picture, tuple(round(side / scale) for side in picture.shape[:2]))
    return _encode(Pillow.fromarray(small).quantize(256, dither=Pillow.Dither.NONE), "png", optimize=True)


def photo_uri(picture: RGB) -> str:
    """A picture `(h, w, 3)` as a JPEG of at most 128 pixels a side, in a data URI."""
    photo = Pillow.fromarray(picture)
    photo.thumbnail((SIDE, SIDE), Pillow.Resampling.LANCZOS)
    return _encode(photo, "jpeg", quality=88)


def _encode(picture: Pillow.Image, kind: str, **options: Any) -> str:
    content = io.BytesIO()
    picture.save(content, format=kind, **options)
    return _uri(f"image/{kind}", content.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
