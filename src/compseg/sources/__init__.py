"""Image files become samples: a manifest names them, readers open them."""

from __future__ import annotations

from compseg.sources.images import Images
from compseg.sources.pieces import Slides, TissueArrays

__all__ = ["Images", "Slides", "TissueArrays"]
