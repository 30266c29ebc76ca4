"""Maps and segmenters in the formats of other programs."""

from __future__ import annotations

from compseg.exports.maps import export_maps

__all__ = ["export_maps"]
