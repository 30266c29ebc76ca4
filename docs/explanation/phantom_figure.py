"""Makes docs/explanation/phantom.png: `python docs/explanation/phantom_figure.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from omegaconf import OmegaConf

from compseg.phantom import PhantomSource
from compseg.phantom.bands import TISSUES, component_spectra, tissue_mixes
from compseg.samples import SampleArrays

HERE = Path(__file__).parent
COLUMNS = ("as stained", "truth on tissue", "1080 / 1655 cm$^{-1}$")


def main() -> None:
    """Two disease spots and one healthy spot of the default cohort at 192 pixels, and the spectra of its tissues."""
    preset = OmegaConf.to_container(OmegaConf.load(HERE.parents[1] / "conf" / "source" / "phantom.yaml"))
    keywords = {key: value for key, value in preset.items() if not key.startswith("_")} | {"size": 192}
    source = PhantomSource(**keywords)
    infos = [info for info in source.infos() if info.split == "test"]
    chosen = [info for info in infos if info.label][:2] + [info for info in infos if not info.label][:1]

    figure = plt.figure(figsize=(9, 4.2), layout="constrained")
    spots = figure.add_gridspec(3, 6)
    for row, info in enumerate(chosen):
        axes = [figure.add_subplot(spots[row, column]) for column in range(3)]
        show_spot(axes, source.read(info), np.array(source.channels().values))
        axes[0].set_ylabel("disease" if info.label else "healthy")
        if row == 0:
            for axis, title in zip(axes, COLUMNS, strict=True):
                axis.set_title(title, fontsize=8)
    show_spectra(figure.add_subplot(spots[:, 3:]))
    figure.savefig(HERE / "phantom.png", dpi=90)


def show_spot(axes: list[plt.Axes], spot: SampleArrays, wavenumbers: np.ndarray) -> None:
    first, second = (spot.image[..., np.abs(wavenumbers - band).argmin()] for band in (1080, 1655))
    ratio = np.where(spot.tissue, first / np.maximum(second, 0.1), np.nan)
    axes[0].imshow(spot.thumbnail)
    axes[1].imshow(np.where(spot.tissue, 1 + spot.truth.astype(float), np.nan), cmap="coolwarm", vmin=1, vmax=2)
    axes[2].imshow(ratio, vmin=0, vmax=1, cmap="viridis")
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)


def show_spectra(axis: plt.Axes) -> None:
    wavenumbers = np.linspace(1800, 948, 1000)
    spectra = tissue_mixes() @ component_spectra(wavenumbers)
    for step, (name, spectrum) in enumerate(zip(TISSUES, spectra, strict=True)):
        axis.plot(wavenumbers, spectrum + 0.45 * step, lw=1, color=f"C{step}")
        axis.text(1795, 0.45 * step + 0.12, name, color=f"C{step}", fontsize=8)
    axis.set(xlabel="wavenumber / cm$^{-1}$", ylabel="absorbance (shifted)", yticks=[], xlim=(1800, 948))


if __name__ == "__main__":
    main()
