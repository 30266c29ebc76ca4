"""What accompanies training: seeds, history, diagnostics of the maps, a detector of collapses, pictures."""

from compseg.learning.callbacks.diagnostics import Diagnostics
from compseg.learning.callbacks.history import History
from compseg.learning.callbacks.seeds import SeedEachStep

__all__ = ["Diagnostics", "History", "SeedEachStep"]
