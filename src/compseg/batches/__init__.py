"""From a cohort to batches on the device: the DataModule and its dataset, sampler, cache, loader and augmentation."""

from compseg.batches.augmentation import FlipRotate, RandomFlipRotate90, RandomHorizontalFlip, SpectralJitter
from compseg.batches.datamodule import CohortData
from compseg.batches.dataset import Batch
from compseg.batches.sampler import BalancedBatches

__all__ = [
    "BalancedBatches",
    "Batch",
    "CohortData",
    "FlipRotate",
    "RandomFlipRotate90",
    "RandomHorizontalFlip",
    "SpectralJitter",
]
