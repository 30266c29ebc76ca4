"""`python -m compseg.prepare source=images source.manifest=labels.csv out=data/mine.zarr`: make a cohort."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from compseg.api import make_callable
from compseg.config import verb

if TYPE_CHECKING:
    from compseg.cohort import Cohort
    from compseg.samples import Source


@verb("prepare")
def main(cfg: DictConfig) -> None:
    """Make a cohort of image files, or of another source.

    python -m compseg.prepare source=images source.manifest=labels.csv out=data/mine.zarr
    """
    # Late, as in every verb: `--help` must not wait for torch.
    from compseg.cohort import prepare, upload
    from compseg.report.cohort_page import write_cohort_page

    given = ("tissue", "dtype", "chunk", "pixel_size", "pixel_unit", "overwrite")
    cohort = prepare(_source(cfg), cfg.out, splits=dict(cfg.splits), **{key: cfg[key] for key in given})
    _print_samples(cohort)
    if cfg.preview:
        page = write_cohort_page(cohort, Path(cfg.out).with_name(f"{Path(cfg.out).stem}_preview"))
        print(f"preview: {page}")
    if cfg.upload:
        upload(Path(cfg.out), cfg.upload)
        print(f"{cfg.upload}: uploaded")


def _source(cfg: DictConfig) -> Source:
    """What is read, corrected where that is asked for."""
    from compseg.cohort import Corrected

    source: Source = instantiate(cfg.source)
    node: Any = OmegaConf.to_container(cfg.correction, resolve=True)
    if node["_target_"] == "torch.nn.Identity":
        return source
    return Corrected(source, [node], instantiate, cfg.tissue, dict(cfg.splits))


def _print_samples(cohort: Cohort) -> None:
    """A line on the cohort, and a table of its samples by split."""
    from rich.console import Console
    from rich.table import Table

    from compseg.samples import SPLITS

    axis = cohort.channels
    span = f" from {axis.values[0]:g} to {axis.values[-1]:g} {axis.unit}" if axis.spectral else ""
    print(f"{cohort.path}: {len(cohort.infos)} samples, channels: {axis.count}{span}, {cohort.dtype}")
    table = Table("split", "healthy", "disease", "with truth")
    for split in SPLITS:
        infos = cohort.split(split)
        labels = Counter(info.label for info in infos)
        table.add_row(split, str(labels[0]), str(labels[1]), str(sum(cohort.has_truth(info.name) for info in infos)))
    Console().print(table)


make_callable(__name__)
if __name__ == "__main__":
    main()
