"""compseg: learn to segment disease regions from sample labels alone.

`compseg.load_segmenter(path)` is for a script that only needs maps; it imports only torch and numpy.
Everything else is done by the verbs: `python -m compseg.train`, `prepare`, `evaluate`, `predict`, `compare`, `doctor`.
They can be called, too: `run = compseg.train("data=cohort", "data.path=mine.zarr", seed=1)`; see `compseg.api`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compseg.api import check, compare, doctor, evaluate, export, predict, prepare, train
    from compseg.errors import CompsegError
    from compseg.inference.segmenter import Segmenter, load_segmenter

    __version__: str

__all__ = [
    "CompsegError",
    "Segmenter",
    "__version__",
    "check",
    "compare",
    "doctor",
    "evaluate",
    "export",
    "load_segmenter",
    "predict",
    "prepare",
    "train",
]


def __getattr__(name: str) -> Any:
    # Lazy, so that `compseg --help` waits neither for torch nor for the metadata of installed packages.
    if name in ("Segmenter", "load_segmenter"):
        from compseg.inference import segmenter

        return getattr(segmenter, name)
    if name == "CompsegError":
        from compseg.errors import CompsegError

        return CompsegError
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("compseg")
        except PackageNotFoundError:  # run from a checkout that was never installed
            return "0+unknown"
    if name in __all__:  # the verbs: modules that can be called
        return import_module(f"compseg.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
