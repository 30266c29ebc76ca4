"""A list of corrections as configuration: each is told the axis that the ones before it leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compseg.errors import CompsegError, require
from compseg.preprocessing.mie import ResonantMie
from compseg.samples import Channels, Image, Mask

Node = dict[str, Any]
SPECTRA = ("reference",)  # arguments that may be given as a file


def with_axis(
    nodes: Sequence[Mapping[str, Any]], channels: Channels, make: Callable[[Node], nn.Module]
) -> tuple[list[Node], Channels]:
    """Corrections with `wavenumbers: auto` and `channels: auto` filled in, and spectra read from their files.

    Args:
        nodes: `_target_` and arguments of each.
        channels: What the first is given.
        make: Builds one.

    Returns:
        The same of plain values, and the channels that the last leaves.

    Raises:
        CompsegError: One needs a spectral axis where there is none, or a spectrum is unreadable or too short.
    """
    filled = []
    for place, given in enumerate(nodes):
        node = dict(given)
        where = f"corrections[{place}], {short_name(node)}"
        if node.get("channels") == "auto":
            node["channels"] = channels.count
        if node.get("wavenumbers") == "auto":
            require(channels.spectral, f"{where}: needs a spectral axis, and these channels have none; leave it out")
            node["wavenumbers"] = [float(value) for value in channels.values]
        for key in SPECTRA:
            if isinstance(node.get(key), str):
                node[key] = read_spectrum(Path(node[key]), channels, where)
        filled.append(node)
        channels = _after(make(node), channels)
    return filled, channels


def short_name(node: Mapping[str, Any]) -> str:
    """The class that a node builds, without its module."""
    return str(node["_target_"]).rpartition(".")[2]


def _after(correction: nn.Module, channels: Channels) -> Channels:
    if (axis := getattr(correction, "wavenumbers_after", None)) is not None:
        return replace(channels, count=len(axis), values=tuple(axis))
    if (count := getattr(correction, "channels_after", None)) is not None:
        return Channels(count, names=tuple(f"component {number + 1}" for number in range(count)))
    return channels


def count_after(corrections: nn.Sequential, count: int) -> int:
    """How many channels corrections leave of some."""
    for correction in corrections:
        count = _after(correction, Channels(count)).count
    return count


def read_spectrum(path: Path, channels: Channels, where: str) -> list[float]:
    """A spectrum from a table of two columns, wavenumber and absorbance, at the positions of channels, `(C,)`.

    Raises:
        CompsegError: It is no such table, or does not cover the channels.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").replace(",", " ").replace(";", " ").replace("\t", " ")
        rows = [line.split()[:2] for line in text.splitlines() if line[:1] in "0123456789.-+ " and line.strip()]
        axis, values = np.array(rows, dtype=np.float64).T
    except (OSError, ValueError) as error:
        raise CompsegError(f"{where}: {path}: expected two columns, wavenumber and absorbance ({error})") from error
    order, low, high = np.argsort(axis), min(channels.values, default=0), max(channels.values, default=0)
    covers = len(axis) > 1 and axis.min() <= low and high <= axis.max()
    require(covers, f"{where}: {path}: does not cover {low:g} to {high:g}; give a spectrum of all of this range")
    return [float(value) for value in np.interp(channels.values, axis[order], values[order])]


@torch.no_grad()
def correct_tissue(corrections: nn.Sequential, image: Image, tissue: Mask) -> tuple[Image, float]:
    """An image `(H, W, C)` corrected where there is tissue, zero elsewhere, float32, and what share converged.

    Of corrections that do not iterate all has converged. The pixels are corrected one by one, so that those of a part
    of the image are what they are in all of it.
    """
    spectra = torch.from_numpy(np.ascontiguousarray(image[tissue], dtype=np.float32))
    share = 1.0
    for correction in corrections:
        if isinstance(correction, ResonantMie):
            fit = correction.correct(spectra)
            spectra, share = fit.spectra, float(fit.converged.float().mean()) if len(spectra) else 1.0
        else:
            spectra = correction(spectra.T[None, :, None])[0, :, 0].T
    corrected = np.zeros((*tissue.shape, spectra.shape[1]), np.float32)
    corrected[tissue] = spectra.numpy()
    return corrected, share
