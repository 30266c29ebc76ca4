"""`python -m compseg.export maps=FOLDER format=geojson out=DIR`: maps and segmenters for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from compseg.api import make_callable
from compseg.config import verb
from compseg.errors import closest, require
from compseg.log import console

MODEL_FORMATS = ("onnx", "torch", "card")
SIZES = ("threshold", "pixel_size", "pixel_unit")
OPTIONS = ("class_name", "offset", "scale", "gzip", "tma_core", "ome_zarr")


@verb("export")
def main(cfg: DictConfig) -> None:
    """Write maps, or a run's segmenter, in a format that other programs open.

    python -m compseg.export maps=outputs/RUN format=geojson out=for_qupath
    python -m compseg.export run=outputs/RUN format=onnx out=model
    """
    # Late, as in every verb: `--help` must not wait for torch.
    from compseg.exports.maps import WRITERS, export_maps

    require(
        (cfg.maps is None) != (cfg.run is None), "maps=, run=: expected exactly one of them; give maps=FOLDER or run=R"
    )
    formats = MODEL_FORMATS if cfg.maps is None else tuple(WRITERS)
    require(
        cfg.format in formats,
        f"format={cfg.format}: of {'a run' if cfg.maps is None else 'maps'} no such format; "
        f"{closest(cfg.format, formats, 'formats')}",
    )
    given: Any = OmegaConf.to_container(cfg)
    idle = [key for key in (*SIZES, *OPTIONS) if cfg.run is not None and given[key] is not None]
    idle += ["license"] if cfg.license is not None and cfg.format != "card" else []
    require(not idle, f"{', '.join(idle)}: does nothing in format={cfg.format}; leave it out")
    if cfg.format == "card":
        from compseg.exports.card import write_card

        paths = write_card(Path(cfg.run), Path(cfg.out), cfg.license, tuple(cfg.trust))
    elif cfg.run is not None:
        from compseg.exports.model import export_model

        with console().status(f"exporting as {cfg.format}"):
            paths = export_model(Path(cfg.run), Path(cfg.out), onnx=cfg.format == "onnx", trust=tuple(cfg.trust))
    else:
        sizes, options = ({key: given[key] for key in keys} for keys in (SIZES, OPTIONS))
        paths = export_maps(Path(cfg.maps), cfg.format, Path(cfg.out), **sizes, options=options)
    print(f"{len(paths)} files in {cfg.out}, {paths[0].name} first")


make_callable(__name__)
if __name__ == "__main__":
    main()
