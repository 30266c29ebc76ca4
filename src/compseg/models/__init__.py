"""Segmenters: networks from `(B, C, H, W)` images to `(B, M, H, W)` logits, and wrappers that adapt others.

The room imports torch alone. A segmenter of another library needs no code here, only a YAML file in `conf/model`.
"""

from compseg.models.anomaly import PaDiM, PatchCore
from compseg.models.baselines import AllOnes, SingleBand
from compseg.models.geometry import MeanOfOutputs, Padded, pad_to_multiple
from compseg.models.pretrained import FrozenFeatures, PretrainedPyramid
from compseg.models.segnet import SegNet
from compseg.models.spectral import SpectralSpatial, SpectralStem
from compseg.models.unet import UNet

__all__ = [
    "AllOnes",
    "FrozenFeatures",
    "MeanOfOutputs",
    "PaDiM",
    "Padded",
    "PatchCore",
    "PretrainedPyramid",
    "SegNet",
    "SingleBand",
    "SpectralSpatial",
    "SpectralStem",
    "UNet",
    "pad_to_multiple",
]
