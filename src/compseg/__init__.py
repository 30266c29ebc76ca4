"""compseg: learn to segment disease regions from sample labels alone.

`compseg.load_segmenter(path)` is the way in for a script that only wants maps; it needs torch and numpy alone.
Everything else is reached by the verbs: `python -m compseg.train`, `prepare`, `check`, `evaluate`, `predict`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compseg.inference.segmenter import Segmenter, load_segmenter

try:
    __version__ = version("compseg")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["Segmenter", "__version__", "load_segmenter"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `compseg --help` does not wait for torch.
    if name in ("Segmenter", "load_segmenter"):
        from compseg.inference import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
