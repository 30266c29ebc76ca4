"""What every segmenter in conf/model keeps to. A new YAML file is under test by being there.

`python tests/contract/test_models.py` records golden outputs anew, after a change that is meant to move them.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch import distributed as dist

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


def build(name: str, channels: int = 3, maps: int = 1, seed: int = 0, *, narrow: bool = True) -> nn.Module:
    """The network of a YAML file, as training makes it, but narrow where it has a `width`, to be quick."""
    cohort = {"channels": channels, "maps": maps, "depth": 1}
    root = OmegaConf.create({**cohort, "model": OmegaConf.load(CONFIGS / f"{name}.yaml")})
    if narrow and "width" in root.model:
        root.model.width = 8
    torch.manual_seed(seed)
    return instantiate(root.model)


def image(batch: int = 2, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    """An image of waves, the same whatever torch's random numbers are."""
    count = batch * channels * height * width
    return torch.sin(torch.arange(count, dtype=torch.float64).square() / 1000).float().view(batch, channels, height, -1)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    if not importable(request.param):
        pytest.skip(f"{request.param}: the library behind it is not installed")
    return request.param


@pytest.mark.parametrize(("channels", "maps"), [(1, 1), (3, 2), (64, 1), (450, 1)])
@torch.no_grad()
def test_gives_logits_of_the_images_size(name: str, channels: int, maps: int):
    logits = build(name, channels, maps).eval()(image(channels=channels))
    assert logits.shape == (2, maps, 32, 32)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert logits.min() < logits.max()


@pytest.mark.parametrize(("height", "width"), [(37, 53), (5, 3)])
def test_takes_any_size_one_image_a_batch_in_training(name: str, height: int, width: int):
    logits = build(name).train()(image(1, 3, height, width))
    assert logits.shape == (1, 1, height, width)
    assert logits.isfinite().all()


def test_every_parameter_learns(name: str):
    net = build(name).train()
    net(image()).square().mean().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, f"{key} gets no gradient, so DDP would wait for it"
        assert parameter.grad.isfinite().all(), key
        # A bias may have none: a norm after it takes it away again.
        assert parameter.ndim == 1 or parameter.grad.any(), f"{key} has a gradient of zero"


@torch.no_grad()
def test_evaluation_is_deterministic_and_sample_by_sample(name: str):
    net, x = build(name).eval(), image()
    together, apart = net(x), torch.cat([net(x[:1]), net(x[1:])])
    assert torch.equal(net(x), together)
    # Another batch size may take another convolution algorithm, so equal means: far below what the maps differ by.
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-3 * together.std().item())


@torch.no_grad()
def test_comes_back_from_its_state_dict(name: str, tmp_path: Path):
    net, other = build(name, seed=0).eval(), build(name, seed=1).eval()
    assert not torch.equal(net(image()), other(image()))
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(net(image()), other(image()))


@torch.no_grad()
def test_exports(name: str):
    net, x = build(name).eval(), image(1, 3, 37, 53)
    exported = torch.export.export(net, (x,))
    torch.testing.assert_close(exported.module()(x), net(x))


@torch.no_grad()
def test_compiles(name: str):
    net, x = build(name).eval(), image()
    eager = net(x)
    net.compile(backend="eager")
    torch.testing.assert_close(net(x), eager)


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
    logits = net(image())
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
    net = instantiate(OmegaConf.create({"channels": 5, "maps": 2, "model": OmegaConf.create(example)}).model)
    assert net(image(2, 5, 37, 53)).shape == (2, 2, 37, 53)


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
            net(image().roll(1 + rank + 2 * step, dims=-1) * (1 + rank)).square().mean().backward()
            optimizer.step()
        trained[name] = nn.utils.parameters_to_vector(net.parameters()).detach()
    torch.save(trained, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def record() -> None:
    """Write the golden outputs of every network that can be imported here, and keep those of the others."""
    kept = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    fresh = {name: summary(name) for name in NAMES if importable(name)}
    rows = {name: golden for name, golden in sorted((kept | fresh).items()) if name in NAMES}
    GOLDEN.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    record()
