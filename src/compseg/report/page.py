"""report.html: one file that needs nothing else, with the verdict first, and a threshold that may be moved."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image as Pillow

from compseg.evaluation.curves import SampleMap, with_disease_truth
from compseg.evaluation.metrics import area_fraction, dice
from compseg.evaluation.shortcuts import Shortcuts
from compseg.files import atomic_bytes, atomic_text
from compseg.inference.threshold import Threshold
from compseg.plots.figures import Spectra
from compseg.plots.gallery import COLORMAP, TRUTH_RGB, paint_activation, paint_mask
from compseg.plots.overlay import DISEASE_RGB, RGB, outline, resize
from compseg.plots.style import file_of
from compseg.report.bands import bands_within
from compseg.report.explain import Importance, Seen
from compseg.report.parts import Part, charts_of, finite_or_none
from compseg.report.pictures import colour_vmax, draw_figures, histogram_of, ranked
from compseg.report.reliability import reliability_of
from compseg.report.steps import area_cut, codes_of, counts_above, steps_of
from compseg.report.verdict import verdict_on
from compseg.run_folder import read_history
from compseg.samples import Channels

# All samples together, so that a page of forty stays below ten megabytes and one of a thousand does not grow with them.
MAP_PIXELS, PICTURE_PIXELS, SPECTRA_VALUES = 3_000_000, 6_000_000, 400_000
TEMPLATES = PackageLoader("compseg.report", "")
STATIC = 128  # pixels a side of what is shown without script
CLASSES = [f"{split}/x_{name}" for split in ("train", "val") for name in ("disease", "healthy")]
CURVES = ("epoch", "train/loss", "val/loss", *CLASSES)


@dataclass(frozen=True)
class About:
    """What the page says of a run beside its results.

    Attributes:
        title: Heading, for example the name of the run.
        samples: What was judged, in words.
        channels: The channel axis.
        kept: The epoch whose segmenter was extracted; None where it is not known.
        warnings: What training has named: collapse, shortcuts.
        links: Paths of the run's files from the page, by what they are.
        maps: What the files of each sample's map are called.
        command: What judges the run again, without a threshold.
        config_text: The resolved configuration as YAML.
        environment: Versions, device and the like; nested values are shown as JSON.
    """

    title: str
    samples: str = "its test split"
    channels: Channels = field(default_factory=lambda: Channels(1))
    kept: int | None = None
    warnings: Sequence[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    maps: Mapping[str, str] = field(default_factory=dict)
    command: str = "python -m compseg.evaluate"
    config_text: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """What page and figures show.

    Attributes:
        threshold: The threshold that all rests on.
        test_maps: Test samples with their maps, at least one.
        val_maps: Validation samples with theirs, to compare groups and to fit what is not judged.
        history: Columns of `history.csv` (`history_columns`); may be empty.
        seen: What was seen of each test sample's image, by name.
    """

    threshold: Threshold
    test_maps: Sequence[SampleMap]
    val_maps: Sequence[SampleMap]
    history: Mapping[str, Sequence[float]]
    seen: Mapping[str, Seen]

    @property
    def pictures(self) -> dict[str, RGB]:
        """What is shown under each map, by name."""
        return {name: each.picture for name, each in self.seen.items()}


def write_report(
    path: Path,
    about: About,
    judged: Judged,
    *,
    metrics: Mapping[str, float],
    shortcuts: Shortcuts,
    figures: Mapping[str, bytes],
    importance: Importance | None = None,
    errors: Mapping[str, Any] | None = None,
    beside: Sequence[Part] = (),
) -> Path:
    """Write the page.

    Args:
        path: Of the page, which is written atomically.
        about: The run.
        judged: Its maps.
        metrics: As `compseg.evaluation.tables` makes them.
        shortcuts: Signs that the maps follow something other than the region.
        figures: See `write_figures`.
        importance: Of the channels, if there is any.
        errors: See `compseg.evaluation.uncertainty.errors_by_spread`; None where no spread was asked for.
        beside: What another run made of the same samples.

    Returns:
        `path`.
    """
    threshold, val_maps, test_maps, seen = judged.threshold, judged.val_maps, judged.test_maps, judged.seen
    pictures, history = judged.pictures, judged.history
    order, vmax = ranked(test_maps, threshold), colour_vmax(test_maps, threshold)
    data = {
        **page_data(order, val_maps, threshold, about, vmax),
        "spectra": _spectra(order, seen, about.channels, importance),
        "history": {key: [finite_or_none(v) for v in history[key]] for key in CURVES if key in history},
        "kept": about.kept,
        "errors": errors,
        "spread": _spreads(order, seen),
        "charts": charts_of(beside),
    }
    text = render(
        "report.html",
        data,
        title=about.title,
        about=about,
        beside=beside,
        verdict=verdict_on(metrics, threshold, test_maps, shortcuts),
        threshold=threshold,
        cards=[_card(item, threshold, pictures, vmax, len(order)) for item in order],
        judged=bool(with_disease_truth(order)),
        truth=any(item.truth is not None for item in order),
        groups=sorted({item.info.group for item in order}),
        reliability=data["reliability"],
        errors=errors,
        unsure=data["spread"] is not None,
        importance=0 if importance is None else importance.samples,
        vmax=vmax,
        # The gallery is there in HTML.
        figures={name: data_uri("image/png", content) for name, content in figures.items() if name != "gallery"},
        metrics=metrics,
        environment={key: _in_words(value) for key, value in about.environment.items()},
    )
    atomic_text(path, text)
    return path


def write_figures(folder: Path, judged: Judged, channels: Channels) -> dict[str, bytes]:
    """Write the page's figures as PNG files, each atomically, for slides and papers.

    Returns:
        What the files hold, by name.
    """
    spectra = sampled_spectra(judged.test_maps, judged.seen, channels)
    figures = draw_figures(
        judged.threshold, judged.test_maps, judged.val_maps, judged.history, judged.pictures, spectra
    )
    written = {name: file_of(figure) for name, figure in figures.items()}
    for name, content in written.items():
        atomic_bytes(folder / f"{name}.png", content)
    return written


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=1, default=str)


def render(template: str, data: Mapping[str, Any], **values: Any) -> str:
    """A page of this package: its template with `page.css`, `plots.js` and its own script inside.

    Names of samples and the configuration are what users or strangers type, so all is escaped. Beyond that the page
    forbids itself any request and any script but its own (Content Security Policy, level 2, by the script's hash).

    Args:
        template: File name; its script has the same name with `.js`.
        data: What the script reads, plain values.
        values: What the template reads.
    """
    script = "\n".join(source_of(name) for name in ("plots.js", template.replace("html", "js")))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Escaped for HTML as a script's text is read: `</script>` would end it.
    plain = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return fill(template, data=Markup(plain), script=Markup(script), digest=digest, **values)


def fill(template: str, **values: Any) -> str:
    """A template of this package with `page.css` inside; what it is given is escaped."""
    environment = Environment(loader=TEMPLATES, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(css=Markup(source_of("page.css")), **values)


def source_of(name: str) -> str:
    """A file of this package, as it is."""
    return TEMPLATES.get_source(Environment(), name)[0]


def page_data(
    order: Sequence[SampleMap], val_maps: Sequence[SampleMap], threshold: Threshold, about: About, vmax: float
) -> dict[str, Any]:
    """All that the threshold moves, and the plots that it does not."""
    steps = steps_of(order, threshold)
    everyone = [*((item, "validation") for item in val_maps), *((item, "test") for item in order)]
    return {
        "steps": steps.tolist(),
        "fitted": int(np.flatnonzero(steps == threshold.value)[0]),
        "interval": [threshold.low, threshold.high],
        "cut": area_cut(val_maps, threshold),
        "command": about.command,
        "vmax": vmax,
        "colours": matplotlib.colormaps[COLORMAP](range(0, 256, 15), bytes=True)[:, :3].tolist(),
        "samples": [_sample(item, steps, about, len(order)) for item in order],
        "histogram": histogram_of(order, vmax),
        "groups": [_dot(item, split) for item, split in everyone],
        "reliability": reliability_of(val_maps),
    }


def _dot(item: SampleMap, split: str) -> dict[str, Any]:
    info = item.info
    return {
        "name": info.name,
        "group": info.group,
        "label": info.label,
        "x": finite_or_none(item.pooled),
        "split": split,
    }


def _sample(item: SampleMap, steps: NDArray[np.float64], about: About, count: int) -> dict[str, Any]:
    codes = codes_of(item.activation, item.tissue, steps)
    # Counted before pixels are left out: the numbers are those of the whole map.
    above = counts_above(codes, len(steps)).tolist()
    hits = None if item.truth is None else counts_above(codes[item.region], len(steps)).tolist()
    step = _step(item, count)
    small, region = codes[::step, ::step], item.region[::step, ::step]
    packed = small.tobytes() + (b"" if item.truth is None else np.packbits(region).tobytes())
    info = item.info
    return {
        "name": info.name,
        "label": info.label,
        "class": info.class_name,
        "group": info.group,
        "patient": info.patient,
        "file": about.maps.get(info.name, ""),
        "x": finite_or_none(item.pooled),
        "tissue": int(item.tissue.sum()),
        "disease": None if item.truth is None else int(item.region.sum()),
        "judged": bool(with_disease_truth([item])),
        "above": above,
        "hits": hits,
        "size": list(item.tissue.shape),
        "shape": list(small.shape),
        "codes": base64.b64encode(zlib.compress(packed)).decode(),
    }


def _spreads(order: Sequence[SampleMap], seen: Mapping[str, Seen]) -> dict[str, Any] | None:
    """How far views differ, to be looked at: a byte a pixel from 0 to `vmax`, by sample, and its mean on tissue."""
    found = [(item, each.spread) for item in order if (each := seen.get(item.info.name)) and each.spread is not None]
    if not found:
        return None
    vmax = max(float(np.percentile(spread, 99.5)) for _, spread in found) or 1.0
    shown, mean = {}, {}
    for item, spread in found:
        step, name = _step(item, len(order)), item.info.name
        small = np.clip(254 * spread / vmax, 0, 254).round().astype(np.uint8)[::step, ::step]
        shown[name] = base64.b64encode(zlib.compress(small.tobytes())).decode()
        mean[name] = float(spread[item.tissue].mean()) if item.tissue.any() else 0.0
    return {"vmax": vmax, "of": shown, "mean": mean}


def _step(item: SampleMap, count: int) -> int:
    """Of how many rows and columns one is shown."""
    return max(1, int(np.ceil(np.sqrt(item.tissue.size * count / MAP_PIXELS))))


def _card(
    item: SampleMap, threshold: Threshold, pictures: Mapping[str, RGB], vmax: float, count: int
) -> dict[str, Any]:
    """What is shown of a sample without script: its picture, map and truth, and its numbers at the threshold."""
    marked = threshold.apply(item.activation, item.tissue)
    painted = paint_activation(item.activation, item.tissue, vmax)
    painted[outline(marked)] = DISEASE_RGB
    side = min(512, int(np.sqrt(PICTURE_PIXELS / count)))
    return {
        "info": item.info,
        "area": area_fraction(item, threshold),
        "dice": dice(item, threshold),
        "x": item.pooled,
        "picture": photo_uri(pictures.get(item.info.name, paint_mask(np.zeros_like(marked), item.tissue)), side),
        "map": map_uri(painted),
        "truth": None if item.truth is None else map_uri(paint_mask(item.region, item.tissue, TRUTH_RGB)),
    }


def sampled_spectra(maps: Sequence[SampleMap], seen: Mapping[str, Seen], channels: Channels) -> Spectra | None:
    """Raw spectra inside and outside the region of the disease samples (Figure S1); None where a kind is absent."""
    pixels = [each.pixels for item in maps if (each := seen.get(item.info.name)) and each.pixels]
    kinds = [np.concatenate([np.empty((0, channels.count)), *(pair[kind] for pair in pixels)]) for kind in (0, 1)]
    if not all(len(kind) for kind in kinds):
        return None
    by_truth = any(item.truth is not None and item.truth.any() for item in maps)
    names = ("disease by truth", "other tissue") if by_truth else ("disease by the map", "other tissue")
    return Spectra(kinds[0], kinds[1], channels, names=names)


def _spectra(
    order: Sequence[SampleMap], seen: Mapping[str, Seen], channels: Channels, importance: Importance | None
) -> dict[str, Any] | None:
    """Mean spectra of each sample and of all, and what each channel matters; None without a spectral axis."""
    found = {name: each.spectra for name, each in seen.items() if each.spectra is not None}
    if not found or not channels.spectral:
        return None
    every = max(1, -(-len(found) * 4 * channels.count // SPECTRA_VALUES))
    disease = [found[item.info.name] for item in order if item.info.label and item.info.name in found]
    means = np.array(disease or list(found.values()))
    known = np.isfinite(means)
    mean = np.where(known, means, 0).sum(0) / np.maximum(known.sum(0), 1)
    lines = {name: getattr(importance, name, None) for name in ("gradient", "occlusion", "linear")}
    return {
        "axis": channels.values[::every],
        "unit": channels.unit,
        "bands": bands_within(channels),
        "mean": _floats(mean[:, ::every]),
        "of": {name: _floats(values[:, ::every]) for name, values in found.items()},
        "by": "the expert's region" if with_disease_truth(order) else "the map",
        "importance": {name: _floats(line[::every]) for name, line in lines.items() if line is not None},
    }


def _floats(values: NDArray[Any]) -> str:
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def history_columns(run: Path) -> dict[str, list[float]]:
    """Columns of a run's `history.csv`; empty cells become NaN, and a missing file no columns."""
    rows = read_history(run)
    return {key: [float(row[key] or "nan") for row in rows] for key in (rows[0] if rows else {})}


def map_uri(picture: RGB) -> str:
    """A map `(h, w, 3)` as an indexed PNG of at most 128 pixels a side, in a data URI."""
    # Few colours and hard edges: an indexed PNG, never a JPEG, and no pixel between two measured ones.
    scale = max(*picture.shape[:2], STATIC) / STATIC
    small = resize(picture, tuple(round(side / scale) for side in picture.shape[:2]))
    return _encode(Pillow.fromarray(small).quantize(256, dither=Pillow.Dither.NONE), "png")


def photo_uri(picture: RGB, side: int) -> str:
    """A picture `(h, w, 3)` as a JPEG of at most `side` pixels a side, in a data URI."""
    photo = Pillow.fromarray(picture)
    photo.thumbnail((side, side), Pillow.Resampling.LANCZOS)
    return _encode(photo, "jpeg", quality=85)


def _encode(picture: Pillow.Image, kind: str, **options: Any) -> str:
    content = io.BytesIO()
    picture.save(content, format=kind, **options)
    return data_uri(f"image/{kind}", content.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """A file's content as an address that a page can hold."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
