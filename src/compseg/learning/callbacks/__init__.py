"""What accompanies training: seeds, history, diagnostics of the maps, a detector of collapses, pictures."""

from compseg.learning.callbacks.collapse import CollapseDetector, Finding, read_findings, write_findings
from compseg.learning.callbacks.diagnostics import Diagnostics
from compseg.learning.callbacks.history import History
from compseg.learning.callbacks.pictures import EpochPictures
from compseg.learning.callbacks.seeds import SeedEachStep

__all__ = [
    "CollapseDetector",
    "Diagnostics",
    "EpochPictures",
    "Finding",
    "History",
    "SeedEachStep",
    "read_findings",
    "write_findings",
]
