"""Pictures and the HTML page: what a run came to, for people."""

from compseg.report.figures import Spectra
from compseg.report.judge import judge
from compseg.report.page import read_history, write_report

__all__ = ["Spectra", "judge", "read_history", "write_report"]
