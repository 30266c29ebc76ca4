"""`python -m compseg.predict run=outputs/RUN input=IMAGES out=DIR`: map new images with a run's segmenter."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from compseg.api import make_callable
from compseg.config import verb
from compseg.errors import CompsegError


@verb("predict")
def main(cfg: DictConfig) -> None:
    """Map new images with a run's segmenter: activation maps, overlays, masks and a table of area fractions.

    python -m compseg.predict run=outputs/RUN input=images out=outputs/maps
    """
    # Late, as in every verb: `--help` must not wait for torch.
    from compseg.device import pick_device
    from compseg.evaluation.thresholds import fixed
    from compseg.inference import load_segmenter
    from compseg.inference.images import new_images
    from compseg.inference.prediction import predict

    if (cfg.run is None) == (cfg.segmenter is None):
        raise CompsegError("run=, segmenter=: expected exactly one of them; give run=outputs/RUN or segmenter=FOLDER")
    images, out = new_images(cfg.input), Path(cfg.out)
    segmenter = load_segmenter(cfg.run or cfg.segmenter, pick_device(cfg.device), tuple(cfg.trust))
    if cfg.threshold is not None:
        segmenter = segmenter.with_threshold(fixed(cfg.threshold))
    rows = predict(segmenter, images, out, cfg.channels_first, cfg.tile, cfg.overlap, cfg.overwrite)
    print(f"{len(rows)} images: maps, overlays and masks in {out / 'maps'}, area fractions in {out / 'areas.csv'}")


make_callable(__name__)
if __name__ == "__main__":
    main()
