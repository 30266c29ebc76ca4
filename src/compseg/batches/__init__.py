"""From a cohort to batches on the device: the DataModule and its sampler, cache, crops, loader and augmentation."""

from compseg.batches.augmentation import RandomFlipRotate90, RandomHorizontalFlip, SpectralJitter
from compseg.batches.datamodule import CohortData
from compseg.batches.sampler import BalancedBatches

__all__ = ["BalancedBatches", "CohortData", "RandomFlipRotate90", "RandomHorizontalFlip", "SpectralJitter"]
