"""What `same_numbers.py` runs with two commits: the list of steps, and the pictures that some of them read.

A step is a name and some commands, written as behind `compseg`. `@NAME` is the folder of the step of that name, `@here`
its own; what a step names it needs. Two verbs are not compseg's: `copy @NAME`, because a step must leave the folders of
others alone, and `draw`.
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PLACE = re.compile(r"@([a-z0-9_]+)\b(?!\.)")  # a dot follows in Hydra's own `source@data.source=...`


@dataclass(frozen=True)
class Step:
    """Some commands that leave their outputs in one folder.

    Attributes:
        name: Of the step and of its folder.
        commands: In the words of the base commit.
    """

    name: str
    commands: tuple[str, ...]

    @property
    def needs(self) -> list[str]:
        """The steps whose outputs it reads."""
        named = PLACE.findall(" ".join(self.commands))
        return [name for name in dict.fromkeys(named) if name not in ("here", self.name)]


# One core, a network of a few weights, two epochs: the numbers have to be the same, not good.
SHORT = (
    "data.batch_size=6 trainer.max_epochs=2 trainer.accelerator=cpu trainer.devices=1 trainer.enable_progress_bar=false"
)
TRAIN = f"train hydra.run.dir=@here model.width=8 {SHORT}"
ON_SPOTS = f"{TRAIN} data=cohort data.path=@spots/cohort.zarr"
# The teacher has to find something on 24 spots.
EASY = "difficulty=0.4 tumour_fraction=[0.2,0.6]"
SWEEP = f"train -m hydra.sweep.dir=@here model.width=8 {SHORT} report=false data=cohort data.path=@spots/cohort.zarr"
GRID = f"{SWEEP} method=paper2020_fixed head.beta=1,5"
SEARCH = (
    f"{SWEEP} method=paper2020_fixed hydra/sweeper=search "
    "'head.alpha=interval(0.05,0.5)' 'optimizer.lr=tag(log,interval(1e-4,1e-1))' model.norm=batch,group"
)
COMPARE = "compare out=@here jobs=1 'cohorts={spots: @spots/cohort.zarr}'"
# The printed recipe without a norm, in large steps: the maps are empty at once.
COLLAPSE = "method=paper2020 optimizer=rmsprop optimizer.lr=0.05 scheduler=constant model.norm=none"


def spots(source: str, holds: str = "") -> str:
    """A phantom of 46 small spots.

    Args:
        source: The key of the source.
        holds: Further settings of it.
    """
    takes = "takes={train:{healthy:6,disease:6},val:{healthy:3,disease:3}}"
    arrays = [f"arrays.{name}.holds={{T:10,N:10}} arrays.{name}.{takes}" for name in ("A1", "A2")]
    last = "arrays.A3.holds={T:5,N:5} arrays.A3.takes={test:{healthy:5,disease:5}}"
    return " ".join(f"{source}.{item}" for item in f"size=24 channels=12 {holds} {' '.join(arrays)} {last}".split())


def overrides(epochs: int, more: str = "model.width: 8") -> str:
    """What holds for all runs of a comparison."""
    return f"'overrides={{data.batch_size: 6, trainer.max_epochs: {epochs}, trainer.accelerator: cpu, {more}}}'"


def steps_of(root: Path) -> list[Step]:
    """Every step, those that others need first.

    Args:
        root: A checkout; each of its methods takes part.
    """
    methods = ",".join(sorted(file.stem for file in (root / "conf" / "method").glob("*.yaml")))
    return [*cohorts(), *runs(), *comparisons(methods), *judged(), *sweeps()]


def cohorts() -> list[Step]:
    pictures = "prepare source=images source.manifest=@drawn/labels.csv out=@here/cohort.zarr chunk=16"
    return [
        Step("spots", (f"prepare source=phantom out=@here/cohort.zarr {spots('source', EASY)}",)),
        # Another edition where `draw` changes, so that no record of it stands.
        Step("drawn", ("draw @here edition=1",)),
        Step("pictures", (pictures, "check cohort=@here/cohort.zarr")),
        Step("checked", ("check cohort=@spots/cohort.zarr",)),
    ]


def runs() -> list[Step]:
    nothing = f"source@data.source=phantom_null data.path=@here/cohort.zarr {spots('data.source')}"
    resumed = f"{ON_SPOTS} scheduler=constant model.dropout=0.3"
    some = "mean_teacher,flip_consistency,spectral_crf,turn_consistency"
    others = "dense_negatives,entropy,outside_tissue,size_penalty,total_variation"
    return [
        Step("default", (ON_SPOTS,)),
        Step("on_pictures", (f"{TRAIN} data=cohort data.path=@pictures/cohort.zarr augmentation=mirror",)),
        Step("fallback", (f"{TRAIN} {nothing}",)),
        Step("paper", (f"{ON_SPOTS} method=paper2020 augmentation=turns_and_jitter starts=2",)),
        Step("regularisers", (f"{ON_SPOTS} method=mean +regulariser=[{some}]",)),
        Step("more_regularisers", (f"{ON_SPOTS} method=mean preprocess=detrend +regulariser=[{others}]",)),
        Step("resumed", (f"{resumed} evaluate=false", f"{resumed} trainer.max_epochs=3 trainer.resume=auto")),
        Step("cropped", (f"{ON_SPOTS} method=mean preprocess=vector augmentation=none data.crop=16",)),
        Step("restarted", (f"{ON_SPOTS} {COLLAPSE} trainer.max_epochs=3 callbacks.collapse.restarts=1",)),
        Step("two_processes", (f"{ON_SPOTS} preprocess=snv trainer.devices=2 data.batch_size=4",)),
    ]


def comparisons(methods: str) -> list[Step]:
    one_sided = "{method: paper2020, name: one_sided, overrides: {objective: one_sided}}"
    wide = "[unet,segnet,{model: spectral_spatial, name: spectral}]"
    library = "[unet_small,unet_stem,segresnet]"
    return [
        Step("methods", (f"{COMPARE} 'methods=[{methods},{one_sided}]' seeds=1 {overrides(1)}",)),
        Step("models", (f"{COMPARE} methods=[mean] 'models={wide}' seeds=1 {overrides(1)}",)),
        Step(
            "more_models",
            (f"{COMPARE} methods=[mean] models={library} seeds=1 {overrides(1, 'trainer.precision: 32-true')}",),
        ),
        Step("compared", (f"{COMPARE} methods=[compseg,paper2020,all_ones] seeds=2 ceiling=compseg {overrides(2)}",)),
        Step("left_out", (f"{COMPARE} methods=[mean,supervised] seeds=1 cv=group {overrides(1)}",)),
    ]


def judged() -> list[Step]:
    return [
        Step("evaluated", ("copy @default", "evaluate run=@here")),
        Step("evaluated_val", ("copy @default", "evaluate run=@here test=false")),
        Step("evaluated_elsewhere", ("copy @default", "evaluate run=@here cohort=@fallback/cohort.zarr report=false")),
        Step("predicted", ("predict run=@default input=@spots/cohort.zarr out=@here",)),
        Step("predicted_in_tiles", ("predict run=@default input=@spots/cohort.zarr out=@here tile=16 overlap=2",)),
        Step("predicted_pictures", ("predict run=@on_pictures input=@drawn/images out=@here threshold=0.5",)),
    ]


def sweeps() -> list[Step]:
    # TPE samples its first ten trials at random; its estimator is Optuna's own and changes with Optuna's versions.
    tpe = "hydra/sweeper/strategy=tpe hydra.sweeper.n_trials=5"
    local = "hydra/launcher=local hydra.launcher.jobs=1"
    return [
        Step("grid", (f"{GRID} optimizer.lr=0.001,0.01",)),
        Step("grid_local", (f"{GRID} optimizer=adamw,rmsprop {local}",)),
        Step("search_tpe", (f"{SEARCH} {tpe}",)),
        Step("search_random", (f"{SEARCH} hydra/sweeper/strategy=random hydra.sweeper.n_trials=4 {local}",)),
        Step("sweep_report", ("copy @grid", "sweep_report dir=@here rank_by=val/pixel_ap")),
    ]


def draw(folder: Path) -> None:
    """Small colour pictures with a reddish square where they are diseased, their masks and their manifest."""
    for name in ("images", "truth"):
        (folder / name).mkdir(parents=True)
    drawn = np.random.default_rng(0)
    rows = [draw_one(folder, index, drawn) for index in range(20)]
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for path in folder.rglob("*.*"):
        os.utime(path, (0, 0))  # a cohort keeps a digest of its files' times


def draw_one(folder: Path, index: int, drawn: np.random.Generator) -> dict[str, object]:
    truth = np.zeros((24, 28), bool)
    if index % 2:
        top, left = drawn.integers(2, 10, 2)
        truth[top : top + 10, left : left + 12] = True
    picture = drawn.normal(120, 25, (*truth.shape, 3)) + truth[..., None] * np.array([60, -20, -20])
    image, mask = f"images/p{index:02}.png", f"truth/p{index:02}.npy"
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / image)
    np.save(folder / mask, truth)
    names = {"sample": f"p{index:02}", "image": image, "label": index % 2}
    return {**names, "patient": f"m{index // 2}", "truth": mask if index % 2 else ""}
