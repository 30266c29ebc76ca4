"""Maps and segmenters in the formats of other programs."""

from __future__ import annotations

from compseg.exports.card import write_card
from compseg.exports.maps import export_maps
from compseg.exports.model import export_model

__all__ = ["export_maps", "export_model", "write_card"]
