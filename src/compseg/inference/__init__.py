"""From a trained network to maps: the extracted segmenter, tiles, prediction, CAM."""

from compseg.inference.segmenter import Segmenter, load_segmenter
from compseg.inference.threshold import Threshold

__all__ = ["Segmenter", "Threshold", "load_segmenter"]
