"""`python -m compseg.export maps=FOLDER format=geojson out=DIR`: maps and segmenters for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from compseg.config import verb
from compseg.errors import closest, require


@verb("export")
def main(cfg: DictConfig) -> None:
    """Write maps, or a run's segmenter, in a format that other programs open.

    python -m compseg.export maps=outputs/RUN format=geojson out=for_qupath
    """
    # Late, as in every verb: `--help` must not wait for torch.
    from compseg.exports import export_maps
    from compseg.exports.maps import WRITERS

    require(cfg.format in WRITERS, f"format={cfg.format}: no such format; {closest(cfg.format, WRITERS, 'formats')}")
    given: Any = OmegaConf.to_container(cfg)
    options = {key: given[key] for key in ("class_name", "offset", "scale", "gzip", "ome_zarr")}
    paths = export_maps(
        Path(cfg.maps),
        cfg.format,
        Path(cfg.out),
        threshold=cfg.threshold,
        pixel_size=cfg.pixel_size,
        pixel_unit=cfg.pixel_unit,
        options=options,
    )
    print(f"{len(paths)} files in {cfg.out}, {paths[0].name} first")


if __name__ == "__main__":
    main()
