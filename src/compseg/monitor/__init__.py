"""What accompanies training: history, diagnostics of the maps, a collapse detector, previews, dashboards."""

from compseg.monitor.bar import EpochBar
from compseg.monitor.collapse import CollapseDetector, Finding, read_findings, write_findings
from compseg.monitor.dashboards import Dashboards, wandb_logger
from compseg.monitor.diagnostics import Diagnostics
from compseg.monitor.history import History
from compseg.monitor.previews import EpochPreviews

__all__ = [
    "CollapseDetector",
    "Dashboards",
    "Diagnostics",
    "EpochBar",
    "EpochPreviews",
    "Finding",
    "History",
    "read_findings",
    "wandb_logger",
    "write_findings",
]
