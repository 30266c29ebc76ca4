"""Cohorts with known truth: tissue spots made from published infrared band positions.

`bands` is the chemistry, `anatomy` the arrangement of the tissues, `optics` the measurement and a stained picture for
people; `source` says which spots a cohort has and joins the rest.
"""

from __future__ import annotations

from compseg.phantom.source import PhantomSource

__all__ = ["PhantomSource"]
