"""Training: the LightningModule that joins the parts, the data that feeds it, and the run around them."""

from compseg.learning.augmentation import Mirror, SpectralJitter, Turns
from compseg.learning.callbacks import CollapseDetector, EpochPictures, History, SeedEachStep
from compseg.learning.data import CohortData
from compseg.learning.loggers import Dashboards, wandb_logger
from compseg.learning.module import CompSegNet
from compseg.learning.sampler import BalancedBatches
from compseg.learning.stopping import StopSignals
from compseg.learning.trainer import BestAndLast, Trainer
from compseg.learning.training import train

__all__ = [
    "BalancedBatches",
    "BestAndLast",
    "CohortData",
    "CollapseDetector",
    "CompSegNet",
    "Dashboards",
    "EpochPictures",
    "History",
    "Mirror",
    "SeedEachStep",
    "SpectralJitter",
    "StopSignals",
    "Trainer",
    "Turns",
    "train",
    "wandb_logger",
]
