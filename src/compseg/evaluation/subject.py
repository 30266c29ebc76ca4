"""What an evaluation judges: a run, the samples that it is judged on, and where the results go."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from compseg.cohort import Cohort
from compseg.comparative import ComparativeHead
from compseg.device import pick_device
from compseg.errors import CompsegError
from compseg.file_names import file_name, printable
from compseg.files import read_json
from compseg.inference import Segmenter, load_segmenter
from compseg.inference.building import build_safe
from compseg.inference.ensemble import Ensemble
from compseg.inference.folder import ENSEMBLE
from compseg.inference.images import Adaptation
from compseg.run_folder import BEST, CHECKPOINTS, fingerprint_of, load_checkpoint, load_config
from compseg.samples import SPLITS, SampleInfo

LOG = logging.getLogger("compseg")
ABOUT = "evaluation.json"  # in a folder that is no run folder: what was judged on what


@dataclass(frozen=True)
class Subject:
    """A run, and the samples that it is judged on.

    Attributes:
        run: The run folder, or that of an ensemble.
        config: Its resolved configuration.
        segmenter: Its segmenter, on the device that computes.
        head: Its head, on the same.
        cohort: The cohort that it is judged on.
        external: Whether that is another cohort than the run was trained on.
        split: The samples that are judged: `all` or one of the splits.
        folder: Where the results go: the run folder, or one of their own.
    """

    run: Path
    config: DictConfig
    segmenter: Segmenter
    head: ComparativeHead
    cohort: Cohort
    external: bool
    split: str
    folder: Path

    @classmethod
    def of(
        cls,
        run: Path,
        cohort_path: str | None,
        device: str | torch.device,
        *,
        split: str,
        trust: Sequence[str],
        out: Path | None,
    ) -> Subject:
        """Open all of it; for arguments and errors see `compseg.evaluation.run.evaluate_run`."""
        if split not in ("auto", "all", *SPLITS):
            raise CompsegError(f"split={split}: expected auto, all, {', '.join(SPLITS)}")
        run, config, device = run if run.name else run.resolve(), load_config(run), pick_device(device)
        segmenter = load_segmenter(run, device, trust=trust)
        head = load_head(run, config, trust).to(device)
        cohort, external = open_cohort(run, config, cohort_path)
        usual = run.with_name(file_name(f"{run.name}_on_{name_of(cohort)}")) if external else run
        if split == "auto":
            split = "all" if external else "test"
        return cls(run, config, segmenter, head, cohort, external, split, out or usual)

    def check(self) -> None:
        """Refuse what would be no result, or would mix with other results; say what is done to the images.

        Raises:
            CompsegError: Training has seen the samples, there are none, or the folder holds something else.
        """
        if said := adaptation(self.cohort, self.segmenter).said:
            LOG.warning(printable(f"{self.cohort.path}: {said}"))
        unseen = ("test", "val") if self.has_val else ("test",)
        if not self.external and self.split not in unseen:
            words = " or ".join(unseen)
            raise CompsegError(
                f"split={self.split}: of the run's own cohort expected {words}, which training did not see"
            )
        if self.apart:
            refuse_other_results(self.folder, self.about)
        self.members(self.split)

    @property
    def has_val(self) -> bool:
        """Whether the run has validation samples of its own here, to which a threshold may be fitted."""
        return not self.external and not isinstance(self.segmenter, Ensemble)

    @property
    def infos(self) -> Sequence[SampleInfo]:
        """The judged samples; none where the run's validation samples are, of which there are metrics alone."""
        return [] if self.split == "val" and not self.external else self.members(self.split)

    @property
    def apart(self) -> bool:
        """Whether the results have a folder of their own."""
        return self.folder.resolve() != self.run.resolve()

    @property
    def about(self) -> dict[str, str]:
        """What is judged on what, for the results' own folder."""
        named = {"run": self.run.name, "cohort": str(self.cohort.path)}
        return {**named, "fingerprint": self.cohort.fingerprint, "split": self.split}

    def members(self, split: str) -> Sequence[SampleInfo]:
        """The samples of a split, or of `all`.

        Raises:
            CompsegError: There are none.
        """
        infos = self.cohort.infos if split == "all" else self.cohort.split(split)
        if not infos:
            raise CompsegError(
                f"{self.cohort.path}: no sample in split {split}, so there is nothing to judge; "
                f"give splits in the manifest or in splits.{split}"
            )
        return infos


def open_cohort(run: Path, config: DictConfig, path: str | None = None) -> tuple[Cohort, bool]:
    """The cohort to judge a run on, and whether it is external, that is another than the run was trained on.

    By its fingerprint: a copy of the run's cohort in another place is still the run's, with the group held out that
    training held out. Runs of earlier versions know no fingerprint, there the path decides.

    Raises:
        CompsegError: There is no cohort, or the run's own path now holds another.
    """
    own, learned = str(config.data.path), fingerprint_of(config)
    cohort = Cohort.open(path or own)
    external = str(cohort.path) != own if learned is None else cohort.fingerprint != learned
    if external and path is None:
        raise CompsegError(
            f"{own}: has changed since {run} was trained on it; put the old one back, give cohort= of a copy, or "
            f"cohort={own} to judge the run on what is there now, as on any external cohort"
        )
    if external:
        return cohort, True
    if (run / ENSEMBLE).is_file() and config.data.get("held_out_as") != "val":
        raise CompsegError(
            f"{run}: its members have learned from all samples of {cohort.path}; give cohort= of another"
        )
    return cohort.holding_out(config.data.get("held_out"), config.data.get("held_out_as", "test")), False


def refuse_other_results(folder: Path, about: Mapping[str, str]) -> None:
    """Refuse a folder that holds anything but an evaluation of the same run on the same cohort.

    Raises:
        CompsegError: It holds something else.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return
    path = folder / ABOUT
    held = read_json(path, dict, "delete it") if path.is_file() else {}
    differing = [key for key in ("run", "fingerprint", "split") if held.get(key) != about[key]]
    if differing:
        what = f"holds an evaluation of another {' and '.join(differing)}" if held else "holds something else"
        raise CompsegError(f"{folder}: {what}; give another out=, or delete it")


def name_of(cohort: Cohort) -> str:
    """What people call a cohort: the last part of its path."""
    return str(cohort.path).rstrip("/").rpartition("/")[2].removesuffix(".zarr")


def load_head(run: Path, config: DictConfig, trust: Sequence[str] = ()) -> ComparativeHead:
    """The run's head, with what it may have learned (a noisy-and's level, say) from the best checkpoint."""
    node = OmegaConf.to_container(config.head, resolve=True)
    # The folder may be a stranger's, and Hydra would call anything that its config.yaml names.
    head = build_safe(node, ComparativeHead, f"{run / 'config.yaml'}: head", trust=trust)
    # Most heads learn nothing, and a checkpoint of the paper's network has 250 MB.
    if head.state_dict():
        state = load_checkpoint(run / CHECKPOINTS / BEST)["state_dict"]
        head.load_state_dict(
            {name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")}
        )
    return head.eval()


def adaptation(cohort: Cohort, segmenter: Segmenter) -> Adaptation:
    """How the cohort's images become those that the segmenter takes; those of its own cohort are so already."""
    values = (cohort.input.kind, cohort.input.high)
    return Adaptation.of(cohort.channels, values, segmenter, str(cohort.path), cohort.input.corrections)
