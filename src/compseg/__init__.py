"""compseg: learn to segment disease regions from sample labels alone.

`compseg.load_segmenter(path)` is for a script that only needs maps; it imports only torch and numpy.
Everything else is done by the verbs: `python -m compseg.train`, `prepare`, `check`, `evaluate`, `predict`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compseg.inference.segmenter import Segmenter, load_segmenter

    __version__: str

__all__ = ["Segmenter", "__version__", "load_segmenter"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `compseg --help` waits neither for torch nor for the metadata of installed packages.
    if name in ("Segmenter", "load_segmenter"):
        from compseg.inference import segmenter

        return getattr(segmenter, name)
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("compseg")
        except PackageNotFoundError:  # run from a checkout that was never installed
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
