"""What is known to absorb where in the infrared, for the axes of the page."""

from __future__ import annotations

from compseg.axes import unit_of
from compseg.samples import Channels

# cm-1; Movasaghi, Rehman, ur Rehman, Applied Spectroscopy Reviews 43:134 (2008); amides by Barth, BBA 1767:1073 (2007).
BANDS = (
    (3290, "amide A, N-H stretching"),
    (2958, "CH3 stretching"),
    (2922, "CH2 stretching, lipids"),
    (2852, "CH2 stretching, lipids"),
    (1740, "C=O of esters, lipids"),
    (1654, "amide I, proteins"),
    (1546, "amide II, proteins"),
    (1455, "CH2 and CH3 bending"),
    (1400, "COO- stretching"),
    (1338, "CH2 wagging, collagen"),
    (1240, "amide III; PO2- antisymmetric, nucleic acids"),
    (1170, "C-O of esters"),
    (1150, "C-O of glycogen"),
    (1085, "PO2- symmetric, nucleic acids"),
    (1030, "C-O-H of glycogen and sugars"),
    (970, "backbone of nucleic acids"),
)


def bands_within(channels: Channels) -> list[tuple[int, str]]:
    """Known bands on an axis of wavenumbers; none on any other."""
    if unit_of(channels.unit) != "cm-1" or not channels.values:
        return []
    low, high = min(channels.values), max(channels.values)
    return [(position, name) for position, name in BANDS if low <= position <= high]
