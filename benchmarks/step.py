"""The step: epochs through Lightning, head, metrics and logging against a bare loop over the same batches."""

from __future__ import annotations

from pathlib import Path

import torch
from common import Row, cohort_of_spots, side_by_side
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from compseg.config import compose
from compseg.learning.data import CohortData
from compseg.learning.say import quiet_libraries
from compseg.learning.trainer import Trainer
from compseg.learning.training import build_module, settle


def measure(folder: Path) -> list[Row]:
    quiet_libraries()
    cohort = cohort_of_spots(folder)
    network = ["model=unet_small", "method=paper2020", "augmentation=none", "scheduler=constant"]
    cfg = compose("train", [*network, "data=cohort", f"data.path={cohort.path}", "hydra.run.dir=unused"])
    settle(cfg, cohort)
    module = build_module(cfg)
    data = CohortData(str(cohort.path), batch_size=8, cache="ram", workers=0)
    data.setup()
    batches = list(data.train_dataloader())
    return [_whole(module, batches, folder), _head(module, batches[0])]


def _whole(module, batches, folder: Path) -> Row:
    quiet = {
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "logger": False,
    }

    def lightning():
        trainer = Trainer(max_epochs=4, accelerator="cpu", devices=1, default_root_dir=str(folder), **quiet)
        trainer.fit(module, DataLoader(batches, batch_size=None))

    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)

    def bare():
        for batch in batches * 4:
            optimizer.zero_grad()
            logits = module.segmenter(module.preprocess(batch["image"], batch["tissue"]))
            binary_cross_entropy_with_logits(logits.mean((1, 2, 3)), batch["label"]).backward()
            optimizer.step()

    ours, theirs = side_by_side(lightning, bare)
    return Row(f"{4 * len(batches)} steps of 8 spots, U-Net base 16", ours, "bare PyTorch loop", theirs)


def _head(module, batch) -> Row:
    image = module.preprocess(batch["image"], batch["tissue"])

    def with_head():
        output = module.head(module.segmenter(image), batch["tissue"])
        module.objective(output, batch["label"]).backward()

    def without():
        module.segmenter(image).mean().backward()

    ours, theirs = side_by_side(with_head, without)
    return Row("forward and backward with head and objective", ours, "network alone", theirs)
