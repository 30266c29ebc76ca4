"""Resonant Mie correction: scattering that distorts infrared absorption bands, taken off each spectrum (ME-EMSC).

The formulation is that of J. H. Solheim et al., An open-source code for Mie extinction extended multiplicative signal
correction for infrared microscopy spectra of cells and tissues, J. Biophotonics 12:e201800415 (2019): extinction by
absorbing spheres after van de Hulst (1957) and P. Bassan et al., Analyst 135:268 (2010), with the parameters of T.
Konevskikh et al., J. Biophotonics 9:1251 (2016). It gives the numbers of their code in a fiftieth of the time:
many spectra at once, and the curves of all spheres by a series in the refractive index instead of by their formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compseg.preprocessing.axis import Spectrum
from compseg.preprocessing.emsc import EMSC

BLOCK = 1024  # spectra that iterate together; as they end at different times, fewer would be too few to compute with
AT_ONCE = {"cpu": 128, "cuda": 4096}  # of these in one go: curves in a core's cache, or 1 GB of a GPU's memory
PADDING = 200  # channels at most that the axis is continued by on both sides, as by Solheim's code
EXPLAINED = 0.9996  # of the variance of the curves, where the number of components is not given (Solheim et al.)
MOST_COMPONENTS = 30
NEGLIGIBLE, LEFT_OUT = 1e-5, 1e-4  # of the largest: terms of the series, and curves that its basis leaves out
AMOUNTS = (0.0, 0.5, 1.0, 1.5)  # of the reference, whose curves make the basis
ROOM = 2.0  # radius of the series over that of the reference's refractive index; 99.7 % of a tissue section lie in it
ANGLES = 128  # at which the rim of the series' disk is sampled

Floats = NDArray[np.float64]


class MieFit(NamedTuple):
    """Corrected spectra, and how the iteration went.

    Attributes:
        spectra: `(n, C)`, corrected.
        rmse: `(n,)`, root mean square of what the model of the best iteration left unexplained.
        iterations: `(n,)` int, which iteration that was.
        converged: `(n,)` bool, whether it ended because it no longer improved. A spectrum that cannot be fitted, such
            as an empty one, is zero and has not converged.
    """

    spectra: Tensor
    rmse: Tensor
    iterations: Tensor
    converged: Tensor


class Spheres(NamedTuple):
    """Scatterers: each size parameter with each absorption parameter (Konevskikh et al., 2016).

    Attributes:
        size: alpha, `(A,)`, in m: phase shift over wavenumber, `4 pi r (n - 1)`.
        absorption: gamma, `(G,)`: what absorbance adds to the refractive index, over `n - 1`.
    """

    size: Floats
    absorption: Floats

    @classmethod
    def between(cls, radius: Sequence[float], index: Sequence[float], count: int, absorbance: float) -> Spheres:
        """Spheres from small radii (micrometres) and refractive indices to large ones, both rising together."""
        r, n = (np.linspace(low, high, count) for low, high in (radius, index))
        r = r * 1e-6
        # A path of pi r / 2, the mean through a sphere, absorbs `absorbance`.
        return cls(4 * np.pi * r * (n - 1), absorbance * np.log(10) / (4 * np.pi * (np.pi / 2 * r)) / (n - 1))

    def extinction(self, wavenumbers: Floats, refraction: NDArray[np.complex128]) -> Floats:
        """Extinction efficiencies, `(A * G, ...)`, of spheres whose refractive index varies with the wavenumber.

        Van de Hulst's `Q = 4 Re(1/2 + exp(-w) / w + (exp(-w) - 1) / w**2)` with `w = i rho + rho tan(beta)`, which by
        absorbance a and its dispersion d is `w = alpha (gamma (a + i d) + i nu)`.

        Args:
            wavenumbers: nu in 1/m, to be broadcast with `refraction`.
            refraction: `a + i d`.
        """
        gamma = self.absorption.reshape(-1, *[1] * refraction.ndim)
        alpha = self.size.reshape(-1, *[1] * gamma.ndim)
        w = alpha * (gamma * refraction + 1j * wavenumbers)
        decay = np.exp(-w)
        curves = 4 * (0.5 + decay / w + (decay - 1) / w**2).real
        return np.asarray(curves.reshape(-1, *curves.shape[2:]))


def dispersion(wavenumbers: Floats) -> Floats:
    """The Kramers-Kronig transform as a matrix `(C, C)`: absorbance times it is `d = nu * hilbert(a / nu)`.

    Beyond its ends the spectrum is continued with its last values (Bassan et al., 2010; Solheim et al., 2019).
    """
    count, steps = len(wavenumbers), np.diff(wavenumbers)[[0, -1]]
    # Not beyond half of the smallest wavenumber, where the steps are wide: at zero there is no dispersion.
    padding = min(PADDING, int(wavenumbers.min() / 2 / np.abs(steps).max()))
    places = np.arange(-padding, count + padding)
    inside = np.clip(places, 0, count - 1)
    beyond = np.minimum(places, 0) * steps[0] + np.maximum(places - count + 1, 0) * steps[1]
    spectrum = np.fft.fft(np.eye(count)[:, inside] / (wavenumbers[inside] + beyond))
    positive = np.sign(np.fft.fftfreq(len(places)))
    positive[len(places) // 2] *= len(places) % 2  # of an even number the middle frequency has no sign
    analytic = np.fft.ifft(spectrum * (1 + positive)).imag[:, padding : padding + count]
    return np.asarray(analytic * wavenumbers * -np.sign(steps[0]))


class _Series:
    """The curves of all spheres as a series, since evaluating them is what correction takes its time for.

    At each wavenumber extinction is the real part of an analytic function of the refraction `a + i d`. So in a disk it
    is a power series, whose coefficients are the Fourier coefficients on the rim. The basis holds the principal curves
    of the reference in several amounts: those of other tissue are nearly made of the same.
    """

    def __init__(self, spheres: Spheres, wavenumbers: Floats, reference: Floats, device: torch.device) -> None:
        self.spheres, self.wavenumbers, self.dispersion = spheres, wavenumbers, dispersion(wavenumbers)
        self.centre = reference.max() / 2
        self.radius = ROOM * np.abs(self.refraction(reference) - self.centre).max()
        rim = self.radius * np.exp(2j * np.pi * np.arange(ANGLES) / ANGLES)
        curves = spheres.extinction(wavenumbers[:, None], self.centre + rim + np.zeros((len(wavenumbers), 1)))
        likely = spheres.extinction(wavenumbers, self.refraction(np.outer(AMOUNTS, reference)))
        flat = likely.reshape(len(likely), -1)
        strengths, basis = np.linalg.eigh(flat @ flat.T)
        basis = basis[:, strengths > strengths[-1] * LEFT_OUT**2]
        terms = np.fft.rfft(np.einsum("sk,sca->cak", basis, curves), axis=1) / ANGLES
        size = np.abs(terms).max(axis=(0, 2))
        terms = terms[:, : np.flatnonzero(size > size[0] * NEGLIGIBLE)[-1] + 1]
        # Re(2 c t) = 2 Re c Re t - 2 Im c Im t, and the first power is 1.
        parts = np.stack([2 * terms.real, -2 * terms.imag], axis=2).reshape(len(terms), -1, terms.shape[2])
        parts[:, 0] /= 2
        self.coefficients = torch.from_numpy(parts).float().to(device)  # (C, 2 * powers, basis)
        self.transform = torch.from_numpy(self.dispersion).float().to(device)

    def refraction(self, pure: Floats) -> NDArray[np.complex128]:
        """`a + i d` of absorbances `(..., C)`."""
        return np.asarray(pure + 1j * (pure @ self.dispersion))

    def split(self, pure: Tensor) -> Iterator[tuple[Tensor | slice, Tensor]]:
        """Curves `(m, C, K)` of absorbances `(n, C)`, and of which ones: those in the disk, then those beyond.

        One alone, with which all begin, costs little by the formula, and first results are the most sensitive.
        """
        real, imaginary = (pure - self.centre) / self.radius, pure @ self.transform / self.radius
        near = ((real.square() + imaginary.square()).amax(1) <= 1) & (len(pure) > 1)
        if near.all():
            yield slice(None), self._inside(real, imaginary)
            return
        if near.any():
            yield near, self._inside(real[near], imaginary[near])
        refraction = self.refraction(pure[~near].double().cpu().numpy())
        exact = self.spheres.extinction(self.wavenumbers, refraction)
        yield ~near, torch.from_numpy(exact).to(pure.device).permute(1, 2, 0).contiguous()

    def _inside(self, real: Tensor, imaginary: Tensor) -> Tensor:
        powers = _powers(real, imaginary, self.coefficients.shape[1] // 2)
        return torch.bmm(powers.flatten(0, 1).permute(1, 2, 0), self.coefficients).permute(1, 0, 2)


def _powers(real: Tensor, imaginary: Tensor, count: int) -> Tensor:
    """The first powers of complex numbers `(n, C)` from the zeroth on, `(count, 2, C, n)`.

    In parts, whose rows lie one after the other: complex numbers would have to be copied. Each pass doubles what is
    there.
    """
    powers = real.new_empty(count, 2, *real.T.shape)
    powers[0, 0], powers[0, 1] = 1, 0
    powers[1, 0], powers[1, 1] = real.T, imaginary.T
    for known in (2**doubled for doubled in range((count - 2).bit_length())):
        (a, b), (c, d) = powers[1 : min(known + 1, count - known)].unbind(1), powers[known]
        x, y = powers[known + 1 : 2 * known + 1].unbind(1)
        torch.mul(a, c, out=x).addcmul_(b, d, value=-1)
        torch.mul(a, d, out=y).addcmul_(b, c)
    return powers


class ResonantMie(nn.Module):
    """Absorbance without resonant Mie scattering (ME-EMSC).

    Again and again: how spheres of what is known of the spectrum so far would scatter, for many radii and indices, as a
    few components; the measured spectrum less its fit of these; what remains is known better than before. It ends when
    the residual no longer falls (Solheim et al., 2019, section 2).

    Args:
        wavenumbers: Of the channels in cm-1, `(C,)`, in either direction.
        reference: Absorbance `(C,)` free of scattering from which the iteration starts, for example that of Matrigel;
            None only in `compseg.prepare`, which takes the mean of the training samples' tissue.
        components: Number of components of the curves; None: what explains 99.96 % of them for the reference.
        radius: Smallest and largest of the spheres, micrometres.
        index: Smallest and largest of their real refractive indices.
        spheres: Number of radii, and of indices.
        absorbance: h, of a mean path through a sphere.
        ridge: Penalty on the amounts of curves and constant, in squared absorbance; 0: none (Solheim et al.).
        iterations: At most.
        tolerance: By which the root mean square must fall to count as better.
        patience: Iterations without getting better after which to end.
    """

    def __init__(
        self,
        wavenumbers: Sequence[float],
        reference: Spectrum | None,
        components: int | None = None,
        radius: Sequence[float] = (2.0, 7.1),
        index: Sequence[float] = (1.1, 1.4),
        spheres: int = 10,
        absorbance: float = 0.25,
        ridge: float = 0.0,
        iterations: int = 30,
        tolerance: float = 1e-4,
        patience: int = 1,
    ) -> None:
        super().__init__()
        if reference is None:
            raise ValueError("reference: expected a spectrum; compseg.prepare correction=mie finds one")
        self.wavenumbers = np.asarray(wavenumbers, dtype=np.float64) * 100  # 1/m
        self.reference = np.clip(np.asarray(reference, dtype=np.float64), 0, None)
        self.spheres = Spheres.between(radius, index, spheres, absorbance)
        self.scaling = EMSC(wavenumbers, self.reference.tolist())
        self.ridge, self.iterations, self.tolerance, self.patience = ridge, iterations, tolerance, patience
        self.components = components or self._explaining()
        self._series: _Series | None = None  # made on first use: a network's description is checked without memory

    def _explaining(self) -> int:
        transform = dispersion(self.wavenumbers)
        curves = self.spheres.extinction(self.wavenumbers, self.reference + 1j * (self.reference @ transform))
        unit = self.reference / np.linalg.norm(self.reference)
        strengths = np.linalg.svd(curves - np.outer(curves @ unit, unit), compute_uv=False)[:MOST_COMPONENTS] ** 2
        return int(np.argmax(np.cumsum(strengths) / strengths.sum() > EXPLAINED)) + 1

    def forward(self, image: Tensor) -> Tensor:
        """`(B, C, H, W)` float32 to the same shape; spectra that cannot be fitted (background) become zero."""
        spectra = image.movedim(1, -1)
        corrected = self.correct(spectra.reshape(-1, spectra.shape[-1])).spectra
        return corrected.reshape(spectra.shape).movedim(-1, 1)

    @torch.no_grad()
    def correct(self, spectra: Tensor) -> MieFit:
        """Spectra `(n, C)` corrected, and how the iteration went: some at a time, on all threads or a GPU."""
        on_cpu = spectra.device.type == "cpu"
        if self._series is None or self._series.transform.device != spectra.device:
            self._series = _Series(self.spheres, self.wavenumbers, self.reference, spectra.device)
        blocks = torch.split(spectra, BLOCK if on_cpu else 16 * BLOCK)
        if on_cpu and len(blocks) > 1:
            with _one_thread_each() as threads, ThreadPoolExecutor(threads) as pool:
                fits = list(pool.map(self._fit, blocks))
        else:
            fits = [self._fit(block) for block in blocks]
        return MieFit(*(torch.cat(parts) for parts in zip(*fits, strict=True)))

    @torch.no_grad()
    def _fit(self, spectra: Tensor) -> MieFit:
        """The iteration, of each spectrum until its own end."""
        zero = spectra.new_zeros(len(spectra), dtype=torch.int64)
        best = MieFit(torch.zeros_like(spectra), spectra.new_full((len(spectra),), torch.inf), zero, zero.bool())
        running, guess = torch.arange(len(spectra), device=spectra.device), self.scaling.reference[None]
        for iteration in range(1, self.iterations + 1):
            parts = torch.split(running, AT_ONCE.get(spectra.device.type, BLOCK))
            # All begin from the reference, whose curves are computed once.
            guesses = torch.split(guess, len(parts[0])) if iteration > 1 else [guess] * len(parts)
            steps = [self._step(spectra[part], each) for part, each in zip(parts, guesses, strict=True)]
            guess, rmse = map(torch.cat, zip(*steps, strict=True))
            better = rmse + (self.tolerance if iteration > 1 else 0) < best.rmse[running]
            found = running[better]
            best.spectra[found], best.rmse[found], best.iterations[found] = guess[better], rmse[better], iteration
            waited = iteration - best.iterations[running]
            ended = (waited > self.patience) & (iteration > self.patience + 1) | ~rmse.isfinite()
            best.converged[running[ended]] = best.iterations[running[ended]] > 0
            running, guess = running[~ended], guess[~ended]
            if not len(running):
                break
        return best

    def _step(self, spectra: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """One iteration: measured spectra `(n, C)`, what is known of each or of all; what is known now, and the RMS.

        The curves of many spheres nearly add up to a constant and the reference, so that without a penalty little noise
        or unknown chemistry moves the constant, and with it the multiple that is divided by, as far as past zero.
        """
        # On the scale of the reference, since curves depend on the amount of absorbance; and no negative absorbance.
        pure = self.scaling.correct_pixels_(guess.clone()).clamp_(min=0)
        length = torch.linalg.vector_norm(pure, dim=1, keepdim=True)
        unit = pure / length
        components, kept = self._components(pure, unit)
        # Least squares on absorbance, components and a constant. All but the constant are orthonormal by construction,
        # so that it alone needs solving for.
        offset, rest = (_without(each, unit, components, kept) for each in (torch.ones_like(unit), spectra))
        # Its own rest is that by which both are multiplied; without a penalty this loses fewer digits.
        along = torch.ones_like(unit) if self.ridge else offset
        height = (rest * along).sum(1, keepdim=True) / ((offset * along).sum(1, keepdim=True) + self.ridge)
        multiple = ((spectra - height) * unit).sum(1, keepdim=True) / length
        residual = rest - height * offset
        corrected = pure + residual / multiple
        rmse = residual.square().mean(1).sqrt()
        return corrected, rmse.masked_fill(~corrected.isfinite().all(1), torch.inf)

    def _components(self, pure: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Principal components `(n, C, k)` of the curves, orthogonal to the absorbance (Solheim et al., 2019).

        And what share of each the penalty leaves, `(n, k)`: if the amounts of all spheres are as likely to be small, a
        component is as strong as it is in the curves.
        """
        assert self._series is not None
        result = pure.new_empty(*pure.shape, self.components)
        kept = pure.new_empty(len(pure), self.components)
        for which, curves in self._series.split(pure):
            some = unit[which].to(curves.dtype)
            curves.baddbmm_(some[:, :, None], some[:, None] @ curves, alpha=-1)
            values, vectors = torch.linalg.eigh((curves.mT @ curves).double())
            strengths = values[:, -self.components :]
            leading = vectors[..., -self.components :] / strengths[:, None].sqrt()
            result[which] = (curves @ leading.to(curves.dtype)).to(result.dtype)
            kept[which] = (strengths / (strengths + self.ridge)).to(kept.dtype)
        return result, kept


def _without(spectra: Tensor, unit: Tensor, components: Tensor, kept: Tensor) -> Tensor:
    """Spectra `(n, C)` without their parts along orthonormal ones, `(n, C)` and shares of `(n, C, k)`."""
    rest = spectra - (spectra * unit).sum(1, keepdim=True) * unit
    return rest - (components @ (kept[:, None] * (rest[:, None] @ components)).mT)[..., 0]


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """How many threads may compute at a time, each by itself: their parts are too small to be shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
