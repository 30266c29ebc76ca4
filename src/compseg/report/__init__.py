"""The page of a run: verdict, pictures and metrics, for people."""

from compseg.report.judge import judge
from compseg.report.page import read_history, write_report

__all__ = ["judge", "read_history", "write_report"]
