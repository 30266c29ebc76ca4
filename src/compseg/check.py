"""`python -m compseg.check cohort=data/mine.zarr`: list the problems of a cohort."""

from __future__ import annotations

from omegaconf import DictConfig

from compseg.api import make_callable
from compseg.config import verb
from compseg.errors import CompsegError


@verb("check")
def main(cfg: DictConfig) -> None:
    """Look through a cohort, every stored byte of it, and list its problems.

    python -m compseg.check cohort=data/mine.zarr
    """
    # Late, as in every verb: `--help` must not wait for torch.
    from rich.console import Console
    from rich.table import Table

    from compseg.cohort import Cohort, find_problems
    from compseg.file_names import printable

    problems = find_problems(cfg.cohort, progress=True)
    if problems:
        table = Table("sample", "file", "problem", "fix", "training")
        for problem in problems:
            # A stranger's names may hold what a terminal obeys.
            training = "refuses to start" if problem.fatal else ""
            table.add_row(*map(printable, (problem.sample, problem.file, problem.what, problem.fix, training)))
        # Without markup, because rich would take brackets in a file's name for a style.
        Console(markup=False).print(table)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise CompsegError(f"{cfg.cohort}: {count}; the table says how to fix each")
    cohort = Cohort.open(cfg.cohort)
    use = "" if cohort.split("train") else "; none in split train, so it can be judged on and not trained on"
    print(f"{cfg.cohort}: sound, {len(cohort.infos)} samples{use}")


make_callable(__name__)
if __name__ == "__main__":
    main()
