"""Extended multiplicative signal correction (EMSC): a spectrum is a multiple of a reference, plus what scatters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compseg.preprocessing.axis import Spectrum
from compseg.preprocessing.fitting import Samples, moments

Floats = NDArray[np.float64]

SMALLEST = 1e-6  # multiple of the reference to divide by


def polynomials(wavenumbers: Sequence[float], degree: int) -> Floats:
    """Legendre polynomials up to a degree over the axis, `(degree + 1, C)`, the axis mapped to [-1, 1]."""
    axis = np.asarray(wavenumbers, dtype=np.float64)
    middle, half = (axis.max() + axis.min()) / 2, (axis.max() - axis.min()) / 2
    return np.ascontiguousarray(np.polynomial.legendre.legvander((axis - middle) / half, degree).T)


class EMSC(nn.Module):
    """Each spectrum without baseline and interferents, over its multiple of a reference.

    `y = b * reference + polynomial + interferents + residual`, fitted by least squares; the result is
    `reference + residual / b` (Martens and Stark, J. Pharm. Biomed. Anal. 9:625, 1991; Kohler et al., Appl. Spectrosc.
    59:707, 2005). Removes thickness, a bent baseline, and any interferent whose spectrum is known, such as vapour.

    Args:
        wavenumbers: Of the channels, `(C,)`.
        reference: Spectrum `(C,)`; None: the mean of the training samples' tissue, which is then saved.
        degree: Of the polynomial.
        interferents: Spectra `(K, C)` of what does not belong to the sample.
    """

    reference: Tensor
    baseline: Tensor
    solver: Tensor

    def __init__(
        self,
        wavenumbers: Sequence[float],
        reference: Spectrum | None = None,
        degree: int = 2,
        interferents: Sequence[Sequence[float]] = (),
    ) -> None:
        super().__init__()
        self.given = reference is not None
        known = np.asarray(interferents, dtype=np.float64).reshape(-1, len(wavenumbers))
        self._baseline = np.concatenate([polynomials(wavenumbers, degree), known])
        self.register_buffer("baseline", torch.from_numpy(self._baseline).float(), persistent=False)
        self.register_buffer("reference", torch.zeros(len(wavenumbers)))
        self.register_buffer("solver", torch.zeros(len(self._baseline) + 1, len(wavenumbers)))
        if reference is not None:
            self._refer_to(np.asarray(reference, dtype=np.float64))

    def fit(self, samples: Samples) -> None:
        """Take the mean spectrum of samples as reference, unless one was given."""
        if not self.given:
            self._refer_to(moments(samples)[0].cpu().numpy())

    def _refer_to(self, reference: Floats) -> None:
        # In float64: the columns may be nearly dependent.
        model = np.concatenate([reference[None], self._baseline])
        self.reference.copy_(torch.from_numpy(reference))
        self.solver.copy_(torch.from_numpy(np.linalg.pinv(model.T)))

    def correct_pixels_(self, spectra: Tensor) -> Tensor:
        """The same of spectra `(n, C)`, in place."""
        return self._corrected(spectra, spectra)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 to the same shape; spectra without the reference in them (background) stay finite."""
        spectra = image.movedim(1, -1)
        corrected = self._corrected(spectra.reshape(-1, spectra.shape[-1]))
        return corrected.reshape(spectra.shape).movedim(-1, 1)

    def _corrected(self, spectra: Tensor, out: Tensor | None = None) -> Tensor:
        coefficients = spectra @ self.solver.T
        multiple = coefficients[:, :1]
        multiple = torch.where(multiple.abs() > SMALLEST, multiple, 1.0)
        # `reference + residual / b` is what the baseline leaves, over b.
        return torch.addmm(spectra, coefficients[:, 1:], self.baseline, alpha=-1, out=out).div_(multiple)
