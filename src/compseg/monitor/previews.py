"""Draws some validation samples, histograms, ROC and spectra every few epochs: as files and on dashboards."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image as Pillow
from pytorch_lightning.callbacks import Callback

from compseg.batches import CohortData
from compseg.errors import CompsegError, Stopped
from compseg.evaluation.metrics import roc_curve
from compseg.files import atomic_bytes
from compseg.monitor.collapse import CollapseDetector
from compseg.monitor.dashboards import RGB, Dashboards
from compseg.monitor.diagnostics import BINS, Diagnosis, Floats, Network, data_of, diagnosis_of
from compseg.samples import SampleInfo

if TYPE_CHECKING:
    from compseg.plots.epoch import Preview

WITH_DASHBOARD = 5  # epochs; each set of pictures takes a second or two


class EpochPreviews(Callback):
    """Pictures of the epoch in `figures/epochs`, and the same on dashboards, by rank zero.

    The samples are the same in every epoch and for any number of devices: some of each class, evenly spaced over the
    validation split. The last epoch is always drawn, however training ends, unless it starts again from another seed.

    Args:
        every: Epochs from one set of pictures to the next; `auto`: 5 with a dashboard, and without one the last epoch
            alone; 0: none at all, not even the last.
        per_class: Samples of each class.

    Raises:
        CompsegError: On another word, or a negative number.
    """

    def __init__(self, every: int | str = "auto", per_class: int = 3) -> None:
        if every != "auto" and (isinstance(every, str) or every < 0):
            raise CompsegError(f"callbacks.pictures.every={every}: expected auto or a number of epochs, 0 for none")
        self.every, self.per_class = every, per_class
        self._skipped: int | None = None  # the last epoch, as long as it has not been drawn

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw if it is time to."""
        due = self._due(trainer)
        self._skipped = None if due else trainer.current_epoch
        if due:
            self._draw(trainer, pl_module, trainer.current_epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the last epoch of a training that nobody knew would end with it."""
        given_up = any(isinstance(each, CollapseDetector) and each.restarting for each in trainer.callbacks)  # type: ignore[attr-defined]
        if self.every and self._skipped is not None and not given_up:
            pl_module.eval()  # as in validation; nothing is trained any more
            self._draw(trainer, pl_module, self._skipped)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Draw when a signal ends a training of unknown length: it has no other end. All ranks stop together."""
        if isinstance(exception, Stopped) and (trainer.max_epochs or -1) < 0:
            self.on_train_end(trainer, pl_module)

    def _due(self, trainer: pl.Trainer) -> bool:
        every = (WITH_DASHBOARD if trainer.loggers else None) if self.every == "auto" else int(self.every)
        epoch = trainer.current_epoch + 1
        return every != 0 and (epoch == trainer.max_epochs or (every is not None and epoch % every == 0))

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """All ranks compute the maps, because each may hold a part of the model; rank zero draws."""
        data, net = data_of(trainer), cast("Network", pl_module)
        shown = [show(data, place, trainer, net) for place in chosen(data.val.infos, self.per_class)]
        if trainer.is_global_zero:
            # matplotlib is slow to import, and needed here alone.
            from compseg.plots.epoch import epoch_pictures

            diagnosis = diagnosis_of(trainer)
            counts, curves = counts_of(diagnosis), roc_curves(diagnosis)
            self._send(trainer, epoch_pictures(shown, counts, curves, data.cohort.channels, epoch), counts, epoch)

    def _send(self, trainer: pl.Trainer, pictures: Mapping[str, RGB], counts: Mapping[str, Floats], epoch: int) -> None:
        folder = Path(trainer.default_root_dir) / "figures" / "epochs"
        for name, picture in pictures.items():
            write_png(folder / f"{name}_{epoch:04d}.png", picture)
        dashboards, step, edges = Dashboards(trainer.loggers), trainer.global_step, np.linspace(0, 1, BINS + 1)
        dashboards.pictures({f"figures/{name}": picture for name, picture in pictures.items()}, step, epoch)
        dashboards.histograms({f"activation/{name}": (values, edges) for name, values in counts.items()}, step, epoch)


def counts_of(diagnosis: Diagnosis) -> dict[str, Floats]:
    """Tissue pixels by class, `(BINS,)` in even bins of activation."""
    return dict(zip(("healthy", "disease"), diagnosis.histogram, strict=True))


def roc_curves(diagnosis: Diagnosis) -> dict[str, tuple[Floats, Floats]]:
    """ROC over samples by x, by the words of the legend; without a split that has no AUC."""
    splits = {"training": diagnosis.train, "validation": diagnosis.val}
    return {
        f"{name}, AUC {pooled.auc:.3f}": roc_curve(pooled.x, pooled.labels)
        for name, pooled in splits.items()
        if np.isfinite(pooled.auc)
    }


def chosen(infos: Sequence[SampleInfo], per_class: int) -> list[int]:
    """Places of some samples of each class, disease first, evenly spaced."""
    places: list[int] = []
    for label in (1, 0):
        members = [place for place, info in enumerate(infos) if info.label == label]
        evenly = np.linspace(0, len(members) - 1, min(per_class, len(members))).astype(int)
        places += [members[i] for i in np.unique(evenly)]
    return places


@torch.no_grad()
def show(data: CohortData, place: int, trainer: pl.Trainer, net: Network) -> Preview:
    """The map of one validation sample with the present weights, and what is known of the sample."""
    from compseg.plots.epoch import Preview

    info, cohort = data.val.infos[place], data.cohort
    image, tissue = cohort.image(info.name), cohort.tissue(info.name)
    batch = [torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(tissue)[None, None]]
    # In the precision of validation, so that the picture is of the map that is judged.
    with trainer.precision_plugin.val_step_context():
        output = net(*(trainer.precision_plugin.convert_input(part.to(net.device)) for part in batch))
    return Preview(
        info=info,
        image=image,
        thumbnail=cohort.thumbnail(info.name),
        activation=output.activation[0, 0].float().cpu().numpy(),
        tissue=tissue,
        truth=cohort.truth(info.name),
        x=float(output.x[0]),
    )


def write_png(path: Path, picture: RGB) -> None:
    """Write `(h, w, 3)` uint8."""
    content = io.BytesIO()
    Pillow.fromarray(picture).save(content, format="png")
    atomic_bytes(path, content.getvalue())
