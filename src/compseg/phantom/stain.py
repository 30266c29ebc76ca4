"""A picture for people: the spot as haematoxylin and eosin would show it."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from compseg.phantom.bands import COMPONENTS, Floats

# Optical density of each stain in red, green and blue: Ruifrok and Johnston, Quantification of histochemical staining
# by color deconvolution, Analytical and Quantitative Cytology and Histology 23:291-299 (2001).
_HAEMATOXYLIN = (0.65, 0.70, 0.29)
_EOSIN = (0.07, 0.99, 0.11)
_EOSIN_UPTAKE = {"helix": 0.22, "sheet": 0.22, "collagen": 0.30}


def stain(rng: Generator, content: Floats) -> NDArray[np.uint8]:
    """Haematoxylin on nucleic acid in grains, eosin on protein: `(H, W, 3)` uint8, white where there is nothing.

    Args:
        rng: Random numbers for the grains.
        content: Amounts of the components, `(H, W, K)` in the order of `COMPONENTS`.
    """
    grain = rng.gamma(2.0, 0.5, content.shape[:2])
    haematoxylin = 2.2 * content[..., COMPONENTS.index("nucleic")] * grain
    eosin = sum(uptake * content[..., COMPONENTS.index(name)] for name, uptake in _EOSIN_UPTAKE.items())
    density = np.multiply.outer(haematoxylin, _HAEMATOXYLIN) + np.multiply.outer(eosin, _EOSIN)
    return np.asarray(np.round(255 * 10 ** (-density)), dtype=np.uint8)
