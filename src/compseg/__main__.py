"""`compseg VERB ...` and `python -m compseg VERB ...`: the same as `python -m compseg.VERB ...`."""

from __future__ import annotations

import os
import sys

VERBS = {
    "prepare": "make a cohort from images and their sample labels",
    "check": "look through a cohort for what would harm the training",
    "train": "train a CompSegNet, then evaluate its segmenter; without arguments on the phantom cohort",
    "evaluate": "judge the segmenter of a run and write its report",
    "predict": "map disease regions in new images",
    "export": "write maps or a segmenter for other programs: QuPath, Fiji, napari, ENVI",
    "report": "lay judged runs side by side on one page",
    "compare": "compare methods x models x cohorts x seeds: a ranked table with intervals, a picture",
    "doctor": "look whether this machine has what compseg needs, and how to fix what it lacks",
    "sweep_report": "sum up a sweep of training runs (compseg train -m ...)",
}


def main() -> None:
    """Hand over to the module of a verb, or list the verbs."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in VERBS:
        # The process becomes the verb's own: ranks that Lightning starts later repeat the command line they find.
        os.execv(sys.executable, [sys.executable, "-m", f"compseg.{name}", *arguments])
    elif name in ("-h", "--help", "help"):
        verbs = "\n".join(f"  {verb:<14}{meaning}" for verb, meaning in VERBS.items())
        print(f"usage: compseg VERB [key=value ...]\n\n{verbs}\n\ncompseg VERB --help shows what may be set.")
    elif name == "--version":
        from compseg import __version__

        print(f"compseg {__version__}")
    else:
        # Late, as above: the list of verbs should come without a wait, so it imports nothing but Python's own.
        from compseg.errors import closest

        sys.exit(f"compseg: no verb '{name}'; {closest(name, VERBS, 'verbs')}")


if __name__ == "__main__":
    main()
