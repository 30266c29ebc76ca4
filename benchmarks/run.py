"""`make bench`: every benchmark, as ratios measured side by side, written to docs/performance.md."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import data
import step

from compseg.learning.training import environment

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
TEXT = """# Performance

Made by `make bench`. Each row holds two things measured in turns in one run: the ratio is what counts, the seconds
depend on the machine.

| measured | seconds | against | seconds | ratio |
|---|---|---|---|---|
{rows}

Cohort: the default phantom, 64x64 pixels, 64 channels. Machine: `{machine}`.
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for part in (data, step) for row in part.measure(Path(folder))]
    table = "\n".join(row.markdown() for row in rows)
    print(table, file=sys.stdout)
    PAGE.write_text(TEXT.format(rows=table, machine=json.dumps(environment())), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
