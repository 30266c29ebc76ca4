"""`compseg VERB ...` and `python -m compseg VERB ...`: the same as `python -m compseg.VERB ...`."""

from __future__ import annotations

import os
import sys

from compseg import __version__

VERBS = {
    "prepare": "make a cohort from images and their sample labels",
    "check": "look through a cohort for what would harm the training",
    "train": "train a CompSegNet, then evaluate its segmenter; without arguments on the phantom cohort",
    "evaluate": "judge the segmenter of a run and write its report",
    "predict": "map disease regions in new images",
    "compare": "compare methods x models x cohorts x seeds: a ranked table with intervals, a picture",
    "sweep_report": "sum up a sweep of training runs (compseg train -m ...)",
}


def main() -> None:
    """Hand over to the module of a verb, or list the verbs."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_help())
    elif name == "--version":
        print(f"compseg {__version__}")
    elif name in VERBS:
        # The process becomes the verb's own: ranks that Lightning starts later repeat the command line they find.
        os.execv(sys.executable, [sys.executable, "-m", f"compseg.{name}", *arguments])
    else:
        sys.exit(_unknown(name))


def _help() -> str:
    verbs = "\n".join(f"  {name:<14}{meaning}" for name, meaning in VERBS.items())
    return f"usage: compseg VERB [key=value ...]\n\n{verbs}\n\ncompseg VERB --help shows what may be set."


def _unknown(name: str) -> str:
    from compseg.config.hints import closest  # late: it brings Hydra, and listing the verbs should be quick

    return f"compseg: no verb '{name}'; {closest(name, VERBS, 'verbs')}"


if __name__ == "__main__":
    main()
