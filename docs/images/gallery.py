"""Draws the README's picture from a finished run: `python docs/images/gallery.py outputs/RUN [OUT.png]`."""

import sys
from pathlib import Path

from compseg.cohort import Cohort
from compseg.evaluation.run import load_head, maps_of
from compseg.inference import load_segmenter
from compseg.plots.gallery import gallery
from compseg.report.pictures import chosen, tiles_of
from compseg.run_folder import load_config

run = Path(sys.argv[1])
config, segmenter = load_config(run), load_segmenter(run)
cohort = Cohort.open(config.data.path)
maps = list(maps_of(segmenter, load_head(run, config), cohort, cohort.split("test")))
shown = chosen(maps, segmenter.threshold, per_class=2)
thumbnails = {item.info.name: cohort.thumbnail(item.info.name) for item in shown}
out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_suffix(".png")
gallery(tiles_of(shown, segmenter.threshold, thumbnails)).savefig(out, dpi=70)
