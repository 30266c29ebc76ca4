"""Verb: list what is wrong with a cohort."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from compseg.cohort import Cohort, Fault, find_faults
from compseg.config import verb
from compseg.errors import CompsegError


@verb("check")
def main(cfg: DictConfig) -> None:
    """Look through a cohort, every stored byte of it, and list what is wrong.

    python -m compseg.check cohort=data/mine.zarr
    """
    faults = find_faults(cfg.cohort, progress=True)
    if faults:
        Console(markup=False).print(_table(faults))
        raise CompsegError(
            f"{cfg.cohort}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}; mend what the table says"
        )
    print(f"{cfg.cohort}: sound, {len(Cohort.open(cfg.cohort).infos)} samples")


def _table(faults: list[Fault]) -> Table:
    table = Table("sample", "file", "what", "mend")
    for fault in faults:
        table.add_row(fault.sample, fault.file, fault.what, fault.mend)
    return table


if __name__ == "__main__":
    main()
