"""Training: the run from configuration to extracted segmenter, and the LightningModule that joins the parts.

Read `run`, then `module`.
"""

from compseg.training.checkpoints import BestAndLast
from compseg.training.module import CompSegNet
from compseg.training.run import train
from compseg.training.trainer import Trainer
from compseg.training.unread import refuse_unread

__all__ = ["BestAndLast", "CompSegNet", "Trainer", "refuse_unread", "train"]
