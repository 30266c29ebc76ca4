"""Cohorts with known truth: tissue spots made from published infrared band positions.

`bands` is the chemistry, `anatomy` the arrangement of the tissues, `optics` the measurement and a stained picture for
people; `layout` says which spots a cohort has, and `source` joins them.
"""

from __future__ import annotations

from compseg.phantom.source import PhantomSource

__all__ = ["PhantomSource"]
