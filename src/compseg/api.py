"""The verbs from Python: `compseg.train("data=cohort", "data.path=mine.zarr", seed=1)`.

Each call runs its verb in a process of its own, as the command line does: on any number of devices, with the same
files and errors, leaving nothing behind in the notebook that called. What it returns reads what the verb wrote.
"""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from compseg.config.literals import literal
from compseg.errors import CompsegError, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from compseg.cohort import Cohort
    from compseg.inference import Segmenter


@dataclass(frozen=True, repr=False)
class Judged:
    """What an evaluation has left in a folder.

    Attributes:
        folder: Where.
    """

    folder: Path

    @property
    def metrics(self) -> dict[str, float]:
        """The content of `metrics.json`; empty where nothing was judged."""
        from compseg.files import read_json

        path = self.folder / "metrics.json"
        return read_json(path, dict, "judge the run again") if path.is_file() else {}

    @property
    def report(self) -> Path | None:
        """The page `report.html`; None where there is none."""
        path = self.folder / "report.html"
        return path if path.is_file() else None

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} {self.folder}"]
        lines += [f"  {name:28s} {value:.3f}" for name, value in self.metrics.items() if "_ci_" not in name]
        return "\n".join([*lines, *([f"  report: {self.report}"] if self.report else [])])


class Run(Judged):
    """A training run, and what it was judged by."""

    @property
    def history(self) -> list[dict[str, str]]:
        """A row for each epoch, by column."""
        from compseg.run_folder import read_history

        return read_history(self.folder)

    def segmenter(self, device: str = "cpu") -> Segmenter:
        """The extracted segmenter, a callable from raw cubes to maps."""
        from compseg.inference import load_segmenter

        return load_segmenter(self.folder, device)


@dataclass(frozen=True, repr=False)
class Prediction:
    """Maps of new images.

    Attributes:
        folder: With `maps/` and `areas.csv`.
    """

    folder: Path

    @property
    def areas(self) -> list[dict[str, str]]:
        """The rows of `areas.csv`, one an image."""
        return _rows(self.folder / "areas.csv")

    def map(self, name: str) -> NDArray[np.float32]:
        """The activation map `(H, W)` of an image, in [0, 1].

        Raises:
            CompsegError: There is none of this name.
        """
        import numpy as np

        from compseg.inference.outputs import MAPS, TABLE, read_record

        # What its file is called is written down: a name may be any text.
        images = (read_record(self.folder) or {"images": {}})["images"]
        path = self.folder / MAPS / f"{images[name]['file'] if name in images else name}.npy"
        require(name in images, f"{path}: no such map; {self.folder / TABLE} lists the images")
        found: NDArray[np.float32] = np.load(path)
        return found

    def __repr__(self) -> str:
        rows = [f"  {row['sample']:28s} {float(row['area_fraction']):.3f}" for row in self.areas]
        return "\n".join([f"Prediction {self.folder}: area fractions", *rows])


@dataclass(frozen=True, repr=False)
class Comparison:
    """Methods x models x cohorts x seeds, ranked.

    Attributes:
        folder: With `comparison.md`, `comparison.csv` and a folder for each run.
    """

    folder: Path

    @property
    def table(self) -> list[dict[str, str]]:
        """The rows of `comparison.csv`, by column."""
        return _rows(self.folder / "comparison.csv")

    @property
    def page(self) -> Path:
        """The page with tables and pictures."""
        return self.folder / "comparison.md"

    def __repr__(self) -> str:
        return f"Comparison {self.folder}: {len(self.table)} rows; page: {self.page}"


PASS, WARN, FAIL = "PASS", "WARN", "FAIL"


class Finding(NamedTuple):
    """What `doctor` has looked at, what it has found, and what to do.

    Attributes:
        level: PASS, WARN or FAIL.
        subject: In a word.
        found: What is there.
        fix: What to do; empty where nothing is to be done.
    """

    level: str
    subject: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        """One line."""
        return f"{self.level}  {self.subject:10} {self.found}" + f"; {self.fix}" * bool(self.fix)


def prepare(*overrides: str, **keys: Any) -> Cohort:
    """Make a cohort: `prepare("source=images", "source.manifest=labels.csv", out="mine.zarr")`.

    Args:
        overrides: As on the command line of the verb.
        keys: The same by keyword; values of Python, quoted where need be.

    Raises:
        CompsegError: What the verb would say in one line. So it is with the functions below.
    """
    from compseg.cohort import Cohort

    _call("prepare", overrides, keys)
    return Cohort.open(_given("out", overrides, keys))


def train(*overrides: str, **keys: Any) -> Run:
    """Train, extract the segmenter and judge it: `train("data=cohort", "data.path=mine.zarr", seed=1)`."""
    said = _call("train", overrides, keys)
    return Run(Path(_said("run folder: ", said)))


def evaluate(*overrides: str, **keys: Any) -> Judged:
    """Judge a run on its own cohort or on another: `evaluate(run="outputs/RUN", cohort="other.zarr")`."""
    said = _call("evaluate", overrides, keys)
    return Judged(Path(_said("metrics: ", said)).parent)


def predict(*overrides: str, **keys: Any) -> Prediction:
    """Map new images: `predict(run="outputs/RUN", input="images", out="maps")`."""
    _call("predict", overrides, keys)
    return Prediction(Path(_given("out", overrides, keys)))


def compare(*overrides: str, **keys: Any) -> Comparison:
    """Compare methods: `compare(cohorts=["phantom"], methods=["compseg", "supervised"], seeds=3, out="first")`."""
    said = _call("compare", overrides, keys)
    return Comparison(Path(said[-1]).parent)


def check(*overrides: str, **keys: Any) -> Cohort:
    """Look through a cohort, every byte of it: `check(cohort="mine.zarr")`; its problems are printed and raised."""
    from compseg.cohort import Cohort

    _call("check", overrides, keys)
    return Cohort.open(_given("cohort", overrides, keys))


def export(*overrides: str, **keys: Any) -> Path:
    """Write maps or a segmenter for other programs: `export(maps="maps", format="png", out="shown")`; the folder."""
    _call("export", overrides, keys)
    return Path(_given("out", overrides, keys))


def doctor(*overrides: str, **keys: Any) -> list[Finding]:
    """Look whether this machine has what compseg needs: `doctor(cohort="mine.zarr")`; what fails is raised."""
    said = [line for line in _call("doctor", overrides, keys) if line[:4] in (PASS, WARN)]
    return [Finding(line[:4], line[6:16].strip(), *line[17:].split("; ", 1)) for line in said]


FUNCTIONS = {each.__name__: each for each in (prepare, check, train, evaluate, predict, compare, export, doctor)}


class _Callable(ModuleType):
    """`compseg.train` is a module, for `python -m compseg.train`; called, it does what the function above does."""

    def __call__(self, *overrides: str, **keys: Any) -> Any:
        return FUNCTIONS[self.__name__.rpartition(".")[2]](*overrides, **keys)


def make_callable(module: str) -> None:
    """Let the module of a verb be called; the process of a verb, where it is `__main__`, has no use for that."""
    if module.startswith("compseg."):
        sys.modules[module].__class__ = _Callable


def _call(verb: str, overrides: Sequence[str], keys: Mapping[str, Any]) -> list[str]:
    """Run a verb, show what it prints as it comes, and return that, by line."""
    for each in overrides:
        fits = isinstance(each, str) and not each.startswith("-")
        require(fits, f"compseg.{verb}: {each!r}: expected 'key=value'; flags such as -m are for the command line")
    words = [*overrides, *(f"{key}={literal(value)}" for key, value in keys.items())]
    with tempfile.TemporaryFile("w+") as errors:
        # A session of its own: an interrupt comes to it once, from here, and not from the terminal as well.
        process = subprocess.Popen(
            [sys.executable, "-m", f"compseg.{verb}", *words],
            stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
        said = _shown(process)
        errors.seek(0)
        _raise_for(verb, process.returncode, errors)
    return said


def _shown(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    said = []
    with process:
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                said.append(line.rstrip("\n"))
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    return [line for line in said if line]


def _raise_for(verb: str, code: int, errors: IO[str]) -> None:
    """Raise what a verb has ended in; what it said beside that goes to stderr."""
    lines = errors.read().splitlines()
    last = lines[-1] if lines else ""
    if code and last.startswith(f"compseg {verb}"):
        raise CompsegError(last.partition(": ")[2])
    print("\n".join(lines), end="\n" * bool(lines), file=sys.stderr)
    if code:
        raise RuntimeError(f"compseg {verb}: ended with exit code {code}; what it said is above")


def _said(beginning: str, lines: Sequence[str]) -> str:
    return next(line.removeprefix(beginning) for line in lines if line.startswith(beginning))


def _given(key: str, overrides: Sequence[str], keys: Mapping[str, Any]) -> str:
    """The value of a key that a verb was given."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    found = [OverridesParser.create().parse_override(each) for each in overrides]
    return str({**{str(each.key_or_group): each.value() for each in found}, **keys}[key])


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
