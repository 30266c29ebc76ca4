"""The comparative head and the objective, on the logits of the step's network."""

from __future__ import annotations

import statistics
from pathlib import Path

from common import Row, seconds
from step import loader_of, module_of, spots

METHODS = ("paper2020", "compseg", "lse", "topk")


def measure(folder: Path) -> list[Row]:
    """Rows of the table: the network's forward and backward with what a method adds, against the network alone.

    What is added is a hundredth of the whole, less than two runs of the network differ by, so it is timed by itself, on
    the network's own logits, many times.
    """
    cohort = spots(folder)
    batch = loader_of(cohort)[1][0]
    network, rows = _network(cohort, batch), []
    for method in METHODS:
        module, _ = module_of(cohort, f"method={method}")
        added = _head(module, batch)
        rows.append(
            Row(f"forward and backward, with head and objective of {method}", network + added, "network alone", network)
        )
    return rows


def _network(cohort, batch) -> float:
    module, _ = module_of(cohort)
    image = module.preprocess(batch["image"], batch["tissue"])
    return statistics.median(seconds(lambda: module.segmenter(image).mean().backward()) for _ in range(10))


def _head(module, batch) -> float:
    image = module.preprocess(batch["image"], batch["tissue"])
    logits = module.segmenter(image).detach().requires_grad_()
    truth = batch["tissue"] & (batch["label"] > 0)[:, None, None, None]

    def with_head():
        output = module.head(logits, batch["tissue"])
        statistics_ = module.objective.statistics(output, batch["label"], truth=truth)
        module.objective.finish(statistics_.mean(0)).backward()

    return statistics.median(seconds(with_head) - seconds(lambda: logits.mean().backward()) for _ in range(100))
