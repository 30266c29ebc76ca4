"""Cohorts with known truth: tissue spots drawn from published infrared band positions.

`bands` holds the chemistry, `anatomy` draws where it lies, `optics` what an instrument makes of it, `stain` a picture
for people; `layout` says which spots a cohort has, and `source` joins them.
"""

from compseg.phantom.source import PhantomSource

__all__ = ["PhantomSource"]
