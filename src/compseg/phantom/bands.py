"""The chemistry: infrared bands of seven kinds of molecule, and the mix of them that makes up each tissue.

Positions are published ones, in cm-1. Widths, heights and mixes are this phantom's own choice: plausible, but measured
on nothing.

Sources:
    Movasaghi: Movasaghi, Rehman, ur Rehman, Fourier transform infrared (FTIR) spectroscopy of biological tissues,
        Applied Spectroscopy Reviews 43:134-179 (2008), doi 10.1080/05704920701829043.
    Barth: Barth, Infrared spectroscopy of proteins, Biochimica et Biophysica Acta 1767:1073-1101 (2007).
    Jackson: Jackson, Choo, Watson, Halliday, Mantsch, Beware of connective tissue proteins: assignment and implications
        of collagen absorptions in infrared spectra of human tissues, Biochimica et Biophysica Acta 1270:1-6 (1995).
    Baker: Baker et al., Using Fourier transform IR spectroscopy to analyze biological materials, Nature Protocols
        9:1771-1791 (2014), doi 10.1038/nprot.2014.110.
    Kroeger-Lui: Kroeger-Lui et al., Rapid identification of goblet cells in unstained colon thin sections by means of
        quantum cascade laser-based infrared microspectroscopy, Analyst (2015), doi 10.1039/c4an02001d. It reports
        1163-1316 and 1031-1087 cm-1 for goblet cells; the bands with this source are set inside those windows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

COMPONENTS = ("helix", "sheet", "collagen", "nucleic", "glycogen", "mucin", "lipid")
TISSUES = ("stroma", "epithelium", "mucus", "lymphocytes", "muscle", "tumour")


class Band(NamedTuple):
    """One absorption band.

    Attributes:
        component: One of `COMPONENTS`.
        position: Wavenumber of the maximum in cm-1.
        width: Full width at half maximum in cm-1.
        height: Height relative to the component's strongest band.
        assignment: The vibration.
        source: A key of the module's list of sources.
    """

    component: str
    position: float
    width: float
    height: float
    assignment: str
    source: str


BANDS = (
    Band("helix", 1654, 38, 1.00, "amide I, alpha helix", "Barth"),
    Band("helix", 1546, 42, 0.60, "amide II", "Barth"),
    Band("helix", 1515, 14, 0.08, "tyrosine ring", "Barth"),
    Band("helix", 1455, 26, 0.20, "CH3 and CH2 bending", "Movasaghi"),
    Band("helix", 1400, 30, 0.17, "COO- stretching, CH3 bending", "Movasaghi"),
    Band("helix", 1310, 34, 0.10, "amide III", "Baker"),
    Band("helix", 1242, 36, 0.14, "amide III", "Movasaghi"),
    Band("sheet", 1633, 38, 1.00, "amide I, beta sheet", "Barth"),
    Band("sheet", 1530, 42, 0.55, "amide II", "Barth"),
    Band("sheet", 1455, 26, 0.20, "CH3 and CH2 bending", "Movasaghi"),
    Band("sheet", 1400, 30, 0.17, "COO- stretching, CH3 bending", "Movasaghi"),
    Band("sheet", 1235, 36, 0.16, "amide III, beta sheet", "Movasaghi"),
    Band("collagen", 1660, 44, 1.00, "amide I, triple helix", "Jackson"),
    Band("collagen", 1552, 44, 0.55, "amide II", "Jackson"),
    Band("collagen", 1453, 26, 0.24, "CH3 and CH2 bending", "Jackson"),
    Band("collagen", 1402, 28, 0.15, "COO- stretching", "Jackson"),
    Band("collagen", 1338, 20, 0.15, "CH2 wagging of proline side chains", "Jackson"),
    Band("collagen", 1282, 20, 0.15, "amide III", "Jackson"),
    Band("collagen", 1238, 28, 0.27, "amide III", "Jackson"),
    Band("collagen", 1204, 16, 0.13, "amide III", "Jackson"),
    Band("collagen", 1080, 26, 0.16, "C-O stretching of bound sugars", "Jackson"),
    Band("collagen", 1030, 28, 0.15, "C-O stretching of bound sugars", "Jackson"),
    Band("nucleic", 1712, 34, 0.35, "C=O stretching of bases", "Movasaghi"),
    Band("nucleic", 1240, 34, 0.80, "PO2- antisymmetric stretching", "Movasaghi"),
    Band("nucleic", 1121, 20, 0.25, "C-O stretching of ribose", "Movasaghi"),
    Band("nucleic", 1086, 30, 1.00, "PO2- symmetric stretching", "Movasaghi"),
    Band("nucleic", 1053, 24, 0.45, "C-O stretching of deoxyribose", "Movasaghi"),
    Band("nucleic", 970, 22, 0.40, "phosphate and C-C of the backbone", "Movasaghi"),
    Band("glycogen", 1150, 24, 0.55, "C-O stretching", "Movasaghi"),
    Band("glycogen", 1080, 30, 0.80, "C-O stretching, C-O-H bending", "Movasaghi"),
    Band("glycogen", 1025, 34, 1.00, "C-O-H deformation", "Movasaghi"),
    Band("mucin", 1652, 42, 0.55, "amide I of the core protein", "Barth"),
    Band("mucin", 1548, 44, 0.35, "amide II of the core protein", "Barth"),
    Band("mucin", 1376, 20, 0.20, "CH3 bending of acetyl groups", "Movasaghi"),
    Band("mucin", 1240, 36, 0.30, "sulphate and sugar modes", "Kroeger-Lui"),
    Band("mucin", 1120, 26, 0.55, "C-O-C stretching of the sugar chain", "Movasaghi"),
    Band("mucin", 1076, 30, 1.00, "C-O stretching of the sugar chain", "Kroeger-Lui"),
    Band("mucin", 1042, 30, 0.95, "C-O stretching of the sugar chain", "Kroeger-Lui"),
    Band("lipid", 1740, 24, 1.00, "C=O stretching of esters", "Movasaghi"),
    Band("lipid", 1467, 18, 0.55, "CH2 bending", "Movasaghi"),
    Band("lipid", 1378, 16, 0.15, "CH3 bending", "Movasaghi"),
    Band("lipid", 1236, 32, 0.30, "PO2- antisymmetric stretching of phospholipids", "Baker"),
    Band("lipid", 1170, 30, 0.45, "C-O stretching of esters", "Movasaghi"),
    Band("lipid", 1085, 30, 0.35, "PO2- symmetric stretching of phospholipids", "Baker"),
)

# Rows as TISSUES, columns as COMPONENTS. Tumour differs from epithelium as reported for the colon: less carbohydrate
# (Salman et al., Cellular and Molecular Biology 47:OL159, 2001), less lipid and more nucleic acid (Yao et al.,
# Spectroscopy and Spectral Analysis 31:297, 2011); and more sheet, which moves amide I down by 1 to 2 cm-1.
# Lymphocytes are mostly nucleus, so much nucleic acid alone does not give tumour away.
_MIXES = (
    (0.25, 0.08, 0.60, 0.06, 0.04, 0.02, 0.04),
    (0.66, 0.22, 0.06, 0.20, 0.16, 0.16, 0.07),
    (0.20, 0.08, 0.02, 0.04, 0.06, 0.65, 0.03),
    (0.60, 0.22, 0.06, 0.36, 0.06, 0.03, 0.05),
    (0.78, 0.14, 0.16, 0.07, 0.12, 0.02, 0.03),
    (0.575, 0.305, 0.07, 0.25, 0.115, 0.115, 0.055),
)


def profile(wavenumbers: ArrayLike, position: float, width: float) -> NDArray[np.float64]:
    """A band of height 1: seven parts Gaussian, three parts Lorentzian, of equal width (a pseudo-Voigt profile).

    Args:
        wavenumbers: `(C,)` in cm-1.
        position: Of the maximum, in cm-1.
        width: Full width at half maximum in cm-1.
    """
    offset = 2 * (np.asarray(wavenumbers, dtype=np.float64) - position) / width
    gaussian = np.exp(-np.log(2) * offset**2)
    lorentzian = 1 / (1 + offset**2)
    return np.asarray(0.7 * gaussian + 0.3 * lorentzian)


def component_spectra(wavenumbers: ArrayLike, shifts: ArrayLike | None = None) -> Floats:
    """Spectra of the pure components, `(K, C)` in the order of `COMPONENTS`.

    Args:
        wavenumbers: `(C,)` in cm-1.
        shifts: `(K,)` in cm-1: how far every band of a component is above its published position.
    """
    moved = np.zeros(len(COMPONENTS)) if shifts is None else np.asarray(shifts)
    spectra = np.zeros((len(COMPONENTS), np.size(wavenumbers)))
    for band in BANDS:
        k = COMPONENTS.index(band.component)
        spectra[k] += band.height * profile(wavenumbers, band.position + moved[k], band.width)
    return spectra.astype(np.float32)


def tissue_mixes(difficulty: float = 1.0) -> Floats:
    """How much of each component each tissue holds, `(T, K)` in the order of `TISSUES` and `COMPONENTS`.

    Args:
        difficulty: Divides the difference between tumour and epithelium; 1 is the tabulated difference, 2 half of it.
    """
    mixes = np.array(_MIXES, dtype=np.float32)
    epithelium, tumour = TISSUES.index("epithelium"), TISSUES.index("tumour")
    mixes[tumour] = mixes[epithelium] + (mixes[tumour] - mixes[epithelium]) / difficulty
    return mixes
