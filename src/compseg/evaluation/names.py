"""What the metrics are called, what they mean, and which way is better.

Imports neither torch nor numpy: studies rank runs by the name of a metric, and every training run imports them.
"""

from __future__ import annotations

from dataclasses import dataclass

from compseg.errors import CompsegError


@dataclass(frozen=True)
class Metric:
    """What the name of a metric stands for.

    Attributes:
        description: What it is.
        lower_is_better: Its direction.
        needs_truth: Whether it exists only where an expert has marked the region.
        selects: Whether it is computed on the validation samples too, so that a method, a model or a constant may be
            chosen by it without looking at a test sample.
    """

    description: str
    lower_is_better: bool = False
    needs_truth: bool = False
    selects: bool = False


# Of a split's maps, by name; metrics.json has them as `test/NAME`, those that select also as `val/NAME`.
MAP_METRICS = {
    "area_auc": Metric("area under the ROC over samples, scored by their area fraction", selects=True),
    "pixel_ap": Metric("average precision over pixels", needs_truth=True, selects=True),
    "healthy_area_fraction": Metric("mean area fraction of healthy samples", lower_is_better=True),
    "dice_mean": Metric("mean Dice of disease samples", needs_truth=True),
    "dice_std": Metric("standard deviation of Dice over disease samples", lower_is_better=True, needs_truth=True),
    "dice_best": Metric("mean Dice at the best single threshold", needs_truth=True, selects=True),
}
METRICS = MAP_METRICS | {
    # A check in metrics.json, not a merit.
    "pixel_ap_own": Metric("average precision within disease samples, own truth", needs_truth=True),
    "pixel_ap_swapped": Metric(
        "average precision within disease samples, truth of other samples", lower_is_better=True, needs_truth=True
    ),
    # Of an epoch, in history.csv.
    "loss": Metric("the objective", lower_is_better=True),
    "x_auc": Metric("area under the ROC over samples, scored by their pooled activation x"),
    "x_disease": Metric("mean pooled activation x of disease samples"),
    "x_healthy": Metric("mean pooled activation x of healthy samples", lower_is_better=True),
    "separation": Metric("mean x of disease samples less that of healthy samples"),
    "saturated": Metric("share of samples at whose x the transfer is flat", lower_is_better=True),
    "spread": Metric("standard deviation of the activation within disease samples"),
    "outside": Metric("mean activation off the tissue", lower_is_better=True),
    "named": Metric("whether a collapse is named", lower_is_better=True),
    "restarts": Metric("restarts after a collapse", lower_is_better=True),
}


def lower_is_better(metric: str) -> bool:
    """The direction of a metric.

    Args:
        metric: Its name, with or without the split or group before the slash (`pixel_ap`, `test/pixel_ap`, `val/loss`)
            and the end of an interval behind it (`test/pixel_ap_ci_low`).

    Raises:
        CompsegError: If there is no such metric.
    """
    name = metric.rpartition("/")[2].removesuffix("_ci_low").removesuffix("_ci_high")
    if name not in METRICS:
        raise CompsegError(
            f"{metric}: expected a metric whose direction is known, got another; give one of {', '.join(METRICS)}, "
            "with its split before it (test/pixel_ap)"
        )
    return METRICS[name].lower_is_better
