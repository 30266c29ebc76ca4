"""The page of a run, and of runs side by side; imports nothing, so that `python -m compseg.report --help` is quick."""
