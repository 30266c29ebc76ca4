"""Says within the first epochs that the maps have collapsed, and how to mend it; starts again where it is told to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from compseg.files import atomic_json
from compseg.log import log
from compseg.monitor.diagnostics import diagnosis_of
from compseg.monitor.symptoms import LOST, PATIENCE, Symptom, mend_of, symptom_of

FILE = "collapse.json"


@dataclass(frozen=True)
class Finding:
    """A collapse, or the suspicion of one, that a run has named.

    Attributes:
        seed: Of the attempt.
        epoch: In which it was named.
        since: The first epoch of the row that it was seen in.
        kind: One of the words of `compseg.monitor.symptoms`.
        words: The same with its figures.
        mend: What is likely to help.
        restarted: Whether the run started again from another seed.
    """

    seed: int
    epoch: int
    since: int
    kind: str
    words: str
    mend: str
    restarted: bool


def write_findings(run: Path, findings: Sequence[Finding]) -> None:
    """Write down what a run has named so far."""
    atomic_json(run / FILE, [asdict(finding) for finding in findings])


def read_findings(run: Path) -> list[Finding]:
    """What a run has named so far."""
    file = run / FILE
    return [Finding(**plain) for plain in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else []


class CollapseDetector(Callback):
    """Warns of a symptom that lasts, once for each kind, and writes it to `collapse.json`.

    Args:
        restarts: How often the run may start again from another seed when its maps are lost: empty, full or not finite.
            A suspicion never restarts a run.

    Attributes:
        findings: What has been named, those of attempts that were given up included.
        restarting: Whether training ended in order to start again.
    """

    def __init__(self, restarts: int = 0) -> None:
        self.restarts = restarts
        self.findings: list[Finding] = []
        self.restarting = False
        self._kind, self._since = "", 0

    @property
    def restarted(self) -> int:
        """How often the run has started again."""
        return sum(finding.restarted for finding in self.findings)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the epoch; all ranks see the same and decide alike."""
        found = symptom_of(diagnosis_of(trainer))
        lasting = found is not None and self._lasts(found, trainer.current_epoch)
        values = {"collapse/named": float(lasting), "collapse/restarts": float(self.restarted)}
        pl_module.log_dict(values, rank_zero_only=False)
        if found is None:
            self._kind = ""
        elif lasting and not self._named(found, pl_module):
            self._name(found, trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """How long the present symptom has lasted, and what was named."""
        return {
            "kind": self._kind,
            "since": self._since,
            "restarting": self.restarting,
            "findings": [asdict(f) for f in self.findings],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._kind, self._since = state_dict["kind"], state_dict["since"]
        self.findings = [Finding(**plain) for plain in state_dict["findings"]]
        self.restarting = state_dict["restarting"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was stopped between the decision to start again and the start need not train on."""
        del pl_module
        trainer.should_stop |= self.restarting

    def _lasts(self, found: Symptom, epoch: int) -> bool:
        if found.kind != self._kind:
            self._kind, self._since = found.kind, epoch
        return epoch - self._since + 1 >= PATIENCE[found.kind]

    def _named(self, found: Symptom, pl_module: Any) -> bool:
        return any(old.kind == found.kind and old.seed == pl_module.seed for old in self.findings)

    def _name(self, found: Symptom, trainer: pl.Trainer, pl_module: Any) -> None:
        self.restarting = found.kind in LOST and self.restarted < self.restarts
        mend = mend_of(found.kind, pl_module.config)
        self.findings.append(
            Finding(pl_module.seed, trainer.current_epoch, self._since, found.kind, found.words, mend, self.restarting)
        )
        trainer.should_stop |= self.restarting
        word = "collapse" if found.kind in LOST else "suspicious"
        log(f"{word}: {found.words}, since epoch {self._since}; likely mend: {mend}")
        if trainer.is_global_zero and not self.restarting:
            write_findings(Path(trainer.default_root_dir), self.findings)
