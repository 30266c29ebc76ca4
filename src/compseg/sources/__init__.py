"""Image files become samples: a manifest names them, readers open them."""

from __future__ import annotations

from compseg.sources.images import Images

__all__ = ["Images"]
