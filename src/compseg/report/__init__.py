"""The page of a run: verdict, pictures and metrics, for people."""

from compseg.report.judge import judge
from compseg.report.page import About, history_columns, write_report

__all__ = ["About", "history_columns", "judge", "write_report"]
