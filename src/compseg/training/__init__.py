"""Training: the run from configuration to extracted segmenter, and the LightningModule that joins the parts."""

from compseg.training.module import CompSegNet
from compseg.training.run import train
from compseg.training.trainer import BestAndLast, Trainer

__all__ = ["BestAndLast", "CompSegNet", "Trainer", "train"]
