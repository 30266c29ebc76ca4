"""Between the command line and the rooms: schemas, checks and hints. Only verbs and studies import it."""

from __future__ import annotations

from compseg.config.targets import check_targets
from compseg.config.verbs import compose, conf_dir, verb

__all__ = ["check_targets", "compose", "conf_dir", "verb"]
