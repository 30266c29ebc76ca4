"""What every segmenter in conf/model keeps to. A new YAML file is under test by being there.

`python tests/contract/test_models.py` records the golden outputs again, after a change that is meant to change them.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import distributed as dist
from torch import nn

from compseg.testing import SEGMENTER_CHECKS, MakeSegmenter, waves

CONFIGS = Path(__file__).parents[2] / "conf" / "model"
GOLDEN = Path(__file__).parent / "golden" / "models.json"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
GUIDE = (Path(__file__).parents[2] / "docs" / "how-to" / "segmenters.md").read_text()


def importable(name: str) -> bool:
    """Whether the packages that a YAML file names can be imported; those of optional extras need not be there."""
    packages = set(re.findall(r"_target_: (\w+)", (CONFIGS / f"{name}.yaml").read_text()))
    try:
        for package in packages - {"compseg"}:
            importlib.import_module(package)
    except (ImportError, RuntimeError):  # torchvision beside a torch it was not built for raises RuntimeError
        return False
    return True


def build(name: str, channels: int = 3, maps: int = 1, seed: int | None = 0, *, narrow: bool = True) -> nn.Module:
    """The network of a YAML file, as training makes it, but narrow where it has a `width`, to be quick."""
    root = OmegaConf.create({"channels": channels, "method": {"maps": maps}})
    root.model = OmegaConf.load(CONFIGS / f"{name}.yaml")
    for key in ("depth", "magnify"):
        if root.model.get(key) == "auto":
            root.model[key] = 1
    if "encoder_weights" in root.model:
        root.model.encoder_weights = None  # random ones, the same wherever the tests run
    if narrow and "width" in root.model:
        root.model.width = 8
    if seed is not None:
        torch.manual_seed(seed)
    return instantiate(root.model)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    if not importable(request.param):
        pytest.skip(f"{request.param}: the library behind it is not installed")
    return request.param


@pytest.mark.parametrize("check", SEGMENTER_CHECKS, ids=lambda check: check.__name__)
def test_keeps_the_contract(name: str, check: Callable[[MakeSegmenter], None]):
    torch.manual_seed(0)
    check(lambda channels, maps: build(name, channels, maps, seed=None))


@torch.no_grad()
def test_gives_the_golden_output(name: str):
    golden = json.loads(GOLDEN.read_text())
    if name not in golden:
        pytest.skip(f"no golden output of {name}; record it: python tests/contract/test_models.py")
    tolerance = 1e-3 * golden[name]["std"]
    assert summary(name) == pytest.approx(golden[name], rel=1e-3, abs=tolerance)


@torch.no_grad()
def summary(name: str) -> dict[str, float]:
    """Numbers that tell one network's output from another's."""
    net = build(name).eval()
    logits = net(waves())
    summed = {"parameters": sum(p.numel() for p in net.parameters()), "mean": logits.mean(), "std": logits.std()}
    pixels = {f"pixel_{row}_{column}": logits[0, 0, row, column] for row, column in [(0, 0), (9, 21), (31, 31)]}
    return {key: float(value) for key, value in (summed | pixels).items()}


@pytest.mark.parametrize(
    ("name", "few", "many"), re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \| ([\d,]+) \|", GUIDE, re.MULTILINE)
)
def test_the_guide_counts_parameters_right(name: str, few: str, many: str):
    if not importable(name):
        pytest.skip(f"{name}: the library behind it is not installed")
    for channels, count in [(3, few), (450, many)]:
        assert f"{sum(p.numel() for p in build(name, channels, narrow=False).parameters()):,}" == count


def test_the_guides_example_of_another_librarys_network_works():
    example = next(block for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL) if "monai" in block)
    pytest.importorskip("monai")
    root = OmegaConf.create({"channels": 5, "method": {"maps": 2}, "model": OmegaConf.create(example)})
    net = instantiate(root.model)
    assert net(waves(2, 5, 37, 53)).shape == (2, 2, 37, 53)


def test_trains_in_two_processes(tmp_path: Path):
    names = [name for name in NAMES if importable(name)]
    torch.multiprocessing.spawn(_train_as_one_of_two, args=(str(tmp_path), names), nprocs=2)
    layers = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name in names:
        torch.testing.assert_close(layers[0][name], layers[1][name], rtol=0, atol=0, msg=f"{name}: the ranks differ")
        before = nn.utils.parameters_to_vector(build(name).parameters())
        assert not torch.equal(layers[0][name], before), f"{name} did not learn"


def _train_as_one_of_two(rank: int, folder: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    trained = {}
    for name in names:
        net = nn.parallel.DistributedDataParallel(build(name).train(), find_unused_parameters=False)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        for step in range(2):  # the second step is the one that fails if a parameter took no part in the first
            optimizer.zero_grad()
            net(waves().roll(1 + rank + 2 * step, dims=-1) * (1 + rank)).square().mean().backward()
            optimizer.step()
        trained[name] = nn.utils.parameters_to_vector(net.parameters()).detach()
    torch.save(trained, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def record() -> None:
    """Write the golden outputs of every network that can be imported here; those of the others stay."""
    kept = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    fresh = {name: summary(name) for name in NAMES if importable(name)}
    rows = {name: golden for name, golden in sorted((kept | fresh).items()) if name in NAMES}
    GOLDEN.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    record()
