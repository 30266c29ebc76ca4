"""`python -m compseg.predict run=outputs/RUN input=IMAGES out=DIR`: map new images with a run's segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from compseg.api import make_callable
from compseg.config import verb
from compseg.errors import CompsegError, closest, require


@verb("predict")
def main(cfg: DictConfig) -> None:
    """Map new images with a run's segmenter: activation maps, overlays, masks and a table of area fractions.

    python -m compseg.predict run=outputs/RUN input=images out=outputs/maps
    """
    # Late, as in every verb: `--help` must not wait for torch.
    from compseg.device import pick_device
    from compseg.evaluation.thresholds import fixed
    from compseg.exports.maps import WRITERS, export_maps
    from compseg.inference import load_segmenter
    from compseg.inference.images import Reading, new_images
    from compseg.inference.prediction import predict
    from compseg.inputs import InputSpec
    from compseg.sources.axis import read_axis
    from compseg.sources.images import checked_keys

    if (cfg.run is None) == (cfg.segmenter is None):
        raise CompsegError("run=, segmenter=: expected exactly one of them; give run=outputs/RUN or segmenter=FOLDER")
    for format in cfg.formats:
        require(format in WRITERS, f"formats={format}: {closest(format, tuple(WRITERS), 'formats')}")
    images, out = new_images(cfg.input), Path(cfg.out)
    segmenter = load_segmenter(cfg.run or cfg.segmenter, pick_device(cfg.device), tuple(cfg.trust))
    if cfg.threshold is not None:
        segmenter = segmenter.with_threshold(fixed(cfg.threshold))
    first = segmenter.input.channels_first if cfg.channels_first is None else cfg.channels_first
    how = InputSpec({**segmenter.input.keys, **checked_keys(cfg["keys"], "keys")}, first)
    given: Any = OmegaConf.to_container(cfg)["axis"]  # type: ignore[index, call-overload]
    axis = None if given is None else read_axis(given, cfg.unit)
    reading = Reading(how, axis, cfg.unit)
    rows = predict(segmenter, images, out, reading, cfg.tile, cfg.overlap, cfg.overwrite, cfg.uncertainty)
    for format in cfg.formats:
        export_maps(out, format, out / format)
    print(f"{len(rows)} images: maps, overlays and masks in {out / 'maps'}, area fractions in {out / 'areas.csv'}")


make_callable(__name__)
if __name__ == "__main__":
    main()
