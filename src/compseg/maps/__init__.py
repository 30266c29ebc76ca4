"""From a trained network to maps: the extracted segmenter, its threshold, overlays, prediction."""

from compseg.maps.segmenter import Segmenter, load_segmenter
from compseg.maps.threshold import Threshold

__all__ = ["Segmenter", "Threshold", "load_segmenter"]
