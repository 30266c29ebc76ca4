"""Segmenters that mean harm: none runs, writes, imports or fetches anything, and each ends in its one line.

Run as a script, this file loads each of them in a process that watches itself.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from running import HANGS

NET = {"_target_": "compseg.models.UNet", "in_channels": 3, "width": 4, "depth": 1}
GOOD = {
    "model": NET,
    "preprocess": {"_target_": "compseg.preprocessing.Preprocess", "channels": 3},
    "pseudo_labels": None,
    "channels": {"count": 3, "values": [], "unit": "", "names": []},
    "tissue_rule": "all",
    "dtype": "float32",
    "threshold": None,
    "provenance": {},
}


def node(target: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
    return {"_target_": target, **({"_args_": list(arguments)} if arguments else {}), **options}


def nested(depth: int) -> Any:
    inner: Any = NET
    for _ in range(depth):
        inner = node("compseg.models.MeanOfOutputs", net=inner)
    return inner


def padded(inner: Any, **options: Any) -> dict[str, Any]:
    """Deep within a description that is fine otherwise."""
    return node(
        "compseg.models.Padded", net=node("compseg.models.MeanOfOutputs", net=inner), **{"multiple": 2, **options}
    )


SMP = "segmentation_models_pytorch"
MONAI = "monai.networks.nets"
TWO = {"spatial_dims": 2, "in_channels": 3, "out_channels": 1}
# What stands for the model, and a word that the one line must hold.
MODELS: dict[str, tuple[Any, str]] = {
    # functions that start, write, import or fetch, below every prefix that used to be allowed
    "os.system": (node("os.system", "touch owned"), "trust=[os]"),
    "subprocess": (node("subprocess.run", ["touch", "owned"]), "trust=[subprocess]"),
    "builtins": (node("builtins.exec", "open('owned', 'w')"), "builtins"),
    "a module that does harm": (node("trap.Net"), "trust=[trap]"),
    "a name that begins alike": (node("compseg_trap.Net"), "trust=[compseg_trap]"),
    "files.atomic_text": (node("compseg.files.atomic_text", path="owned", text="x"), "no segmenter needs it"),
    "files.atomic_json": (node("compseg.files.atomic_json", path="owned", plain=1), "no segmenter needs it"),
    "files.os": (node("compseg.files.os.system", "touch owned"), "no segmenter needs it"),
    "load_segmenter": (node("compseg.load_segmenter", path="elsewhere"), "no segmenter needs it"),
    "prepare": (node("compseg.cohort.prepare", out="owned"), "no segmenter needs it"),
    "write_map": (node("compseg.inference.prediction.write_map", folder="owned"), "no segmenter needs it"),
    "import_module": (node("compseg.config.targets.import_module", "trap"), "no segmenter needs it"),
    "through our module": (node("compseg.models.unet.torch.hub.load", "a"), "no segmenter needs it"),
    "through our class": (node("compseg.models.UNet.load_state_dict"), "no segmenter needs it"),
    "our function": (node("compseg.models.pad_to_multiple", x=1, multiple=2), "no class of networks"),
    "our module": (node("compseg.models.unet"), "no class of networks"),
    "a name of a module": (node("compseg.models.unet.nn"), "no class of networks"),
    "a class re-exported": (node("compseg.models.unet.CompsegError", "x"), "no class of networks"),
    "torch.hub": (node("torch.hub.load", "a"), "no segmenter needs it"),
    "torch.load": (node("torch.load", "x"), "no segmenter needs it"),
    "torch.nn.init": (node("torch.nn.init.os.system", "touch owned"), "no segmenter needs it"),
    "torch.nn.utils": (node("torch.nn.utils.stateless.warnings.warn", "x"), "no segmenter needs it"),
    "torch.nn.functional": (node("torch.nn.functional.importlib.import_module", "trap"), "no segmenter needs it"),
    "torch.nn.modules import": (node("torch.nn.modules.module.warnings.warn", "x"), "no segmenter needs it"),
    "torch.nn.Module": (node("torch.nn.Module"), "trust=[torch.nn.Module]"),
    "torch.nn.parallel": (node("torch.nn.DataParallel", NET), "trust=[torch.nn.DataParallel]"),
    "torch.nn.parameter": (node("torch.nn.Parameter", 1), "no class of networks"),
    "torch.nn lazily": (node("torch.nn.LazyConv2d", 1, 1), "no class of networks"),
    "torch.nn.Transformer": (node("torch.nn.Transformer", num_encoder_layers=60000), "trust="),
    "torch.nn.modules.lazy": (node("torch.nn.modules.lazy.itertools.count"), "no segmenter needs it"),
    "torch.jit": (node("torch.jit.load", "x"), "no segmenter needs it"),
    "monai download": (node("monai.apps.download_url", "http", "owned"), "no segmenter needs it"),
    "monai.networks.utils": (node("monai.networks.utils.save_state", {}, "owned"), "no segmenter needs it"),
    "monai.networks.trt": (node("monai.networks.trt_compiler.trt_compile", NET, "owned"), "no segmenter needs it"),
    "monai through a net": (node(f"{MONAI}.hovernet.download_url", "http", "owned"), "no segmenter needs it"),
    "monai through an allowed net": (node(f"{MONAI}.unet.warnings.warn", "x"), "no segmenter needs it"),
    "monai function": (node(f"{MONAI}.resnet50", pretrained=True), "no class of networks"),
    "monai fetches": (node(f"{MONAI}.SEResNet50", pretrained=True, **TWO), "trust="),
    "monai fetches unasked": (node(f"{MONAI}.EfficientNetBN", model_name="efficientnet-b0"), "trust="),
    "monai by url": (node(f"{MONAI}.HoVerNet", pretrained_url="http"), "trust="),
    "monai by path": (node(f"{MONAI}.ResNetFeatures", model_name="resnet10", pretrained="weights.pt"), "trust="),
    "monai locates": (node(f"{MONAI}.FlexibleUNet", backbone="trap", **TWO), "trust="),
    "monai sam": (node(f"{MONAI}.CellSamWrapper", checkpoint="weights.pt"), "trust="),
    "smp fetches unasked": (node(f"{SMP}.Unet", in_channels=3, classes=1), "add encoder_weights=null"),
    "smp fetches": (node(f"{SMP}.Unet", encoder_weights="imagenet"), "encoder_weights=imagenet"),
    "smp from a hub": (node(f"{SMP}.Unet", encoder_weights=None, encoder_name="tu-hf-hub:a/b"), "encoder_name"),
    "smp from a file": (node(f"{SMP}.Unet", encoder_weights=None, checkpoint_path="weights"), "checkpoint_path"),
    "smp function": (node(f"{SMP}.create_model", arch="unet"), "no class of networks"),
    "smp.from_pretrained": (node(f"{SMP}.from_pretrained", "elsewhere"), "no class of networks"),
    "smp encoders": (node(f"{SMP}.encoders.get_encoder", "resnet34"), "no segmenter needs it"),
    # arguments
    "a function for a class": (padded(node("os.system", "touch owned")), "model.net.net._target_"),
    "a callable as argument": (NET | {"activation": node("os.system", "touch owned")}, "model.activation._target_"),
    "a partial": (NET | {"_partial_": True}, "_partial_"),
    "an argument of a class": (NET | {"__class__": "os"}, "__class__"),
    "an argument with a space": (NET | {"a b": 1}, "a b"),
    "a device": (node("torch.nn.Linear", 3, 3, device="cuda"), "device=cuda"),
    "a device by position": (node("torch.nn.Linear", 60000, 60000, True, "cpu"), "model._args_[3]=cpu"),
    "weights by position": (node(f"{SMP}.Unet", "resnet34", "imagenet"), "model._args_[1]=imagenet"),
    "too many by position": (node("torch.nn.ReLU", True, 1, 2), "expected at most 1"),
    "a device within": (
        node(f"{MONAI}.UNet", channels=[4, 8], strides=[2], norm=["batch", {"device": "cuda"}], **TWO),
        "model.norm[1].device",
    ),
    "a path": (NET | {"activation": "/etc/passwd"}, "model.activation"),
    "a path above": (NET | {"norm": "../../owned"}, "model.norm"),
    "an address": (NET | {"norm": "https://example.org/w.pt"}, "model.norm"),
    "a file of weights": (NET | {"norm": "weights.pt"}, "model.norm"),
    "a newline": (NET | {"norm": "batch\nowned"}, "model.norm"),
    "a long word": (NET | {"norm": "x" * 10**6}, "model.norm"),
    "an unknown argument": (NET | {"widths": 3}, "cannot be built"),
    "an argument out of range": (NET | {"dropout": 7}, "dropout"),
    "a cam's layer": (node("compseg.inference.cam.GradCAM", net=NET, layer="/etc/passwd"), "model.layer"),
    # hangs and memory
    "a matrix": (node("torch.nn.Linear", 60000, 60000), "14400 MB"),
    "a matrix deep within": (padded(node("torch.nn.Linear", 60000, 60000)), "14400 MB"),
    "many levels": (NET | {"depth": 60}, "more than the weights file holds"),
    "too many levels": (NET | {"depth": 10**9}, "model.depth"),
    "too wide": (NET | {"width": 65_536}, "more than the weights file holds"),
    "a number beyond": (NET | {"width": 10**400}, "model.width"),
    "minus a number beyond": (NET | {"width": -(10**9)}, "model.width"),
    "many layers": (node("compseg.models.SpectralSpatial", in_channels=3, spatial_depth=10**6), "spatial_depth"),
    "many blocks": (node(f"{MONAI}.SegResNet", blocks_down=[65_536] * 4, init_filters=8, **TWO), "10000 modules"),
    "many units": (node(f"{MONAI}.UNet", channels=[1, 1], strides=[1], num_res_units=65_536, **TWO), "10000 modules"),
    "a wide window": (
        node(f"{MONAI}.SwinUNETR", depths=[2] * 4, num_heads=[3] * 4, window_size=4096, **TWO),
        "more than the weights file holds",
    ),
    "padding without end": (padded(NET, multiple=65_536), "model.multiple"),
    "a number that is none": (NET | {"dropout": float("nan")}, "model.dropout"),
    "nested": (nested(40), "nested more than"),
    "nested without end": (nested(2000), "segmenter.json"),
    "many values": (NET | {"norm": [0] * 20_000}, "values"),
    "many nodes": (node("torch.nn.Sequential", *[node("torch.nn.ReLU")] * 20_000), "values"),
    # no description of a network at all
    "no target": ({"in_channels": 3}, "expected a Module"),
    "a list": ([NET], "not a segmenter's description"),
    "a word": ("compseg.models.UNet", "not a segmenter's description"),
    "a target that is a number": (node(7), "dotted name"),
    "a target that is a node": (node(NET), "dotted name"),
    "a target without a module": (node("UNet"), "dotted name"),
    "an empty target": (node(""), "dotted name"),
    "a relative target": (node("..models.UNet"), "dotted name"),
    "a private target": (node("torch.nn.modules.conv._ConvNd"), "cannot be built"),
    "another network": (NET | {"depth": 2}, "does not fit the weights"),
}


def described(**changes: Any) -> Callable[[Path], None]:
    """Change the description; `a.b` is the key b within a."""

    def change(folder: Path) -> None:
        plain = json.loads((folder / "segmenter.json").read_text())
        for key, value in changes.items():
            *outer, last = key.split("__")
            place = plain
            for name in outer:
                place = place[name]
            place[last] = value
        plain.pop("sha256")  # whoever changes it on purpose leaves it out
        (folder / "segmenter.json").write_text(json.dumps(plain))

    return change


def text(content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "segmenter.json").write_text(content) and None


class Harm:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


def old(write: Callable[[Path], None]) -> Callable[[Path], None]:
    """A folder of format 2 with a file of weights."""

    def change(folder: Path) -> None:
        described(format=2)(folder)
        write(folder / "weights.pt")

    return change


def zipped(compression: int, data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/data/0", b"\0" * 10**8 if compression else b"")
            archive.writestr("archive/version", "3")

    return write


def larger_than_stored(path: Path) -> None:
    """A tensor of 40 GB over a storage of 4 bytes."""
    import torch

    torch.save({"model": {"a": torch.zeros(1)}, "preprocess": {}}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    name = next(name for name in entries if name.endswith("data.pkl"))
    # The shape (1,) is `K\x01\x85`: one byte, a tuple of one. A longer one: `J` and four bytes.
    before, after = entries[name].split(b"K\x01\x85", 1)
    entries[name] = before + b"\x8a\x05" + (10**10).to_bytes(5, "little") + b"\x85" + after
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)


def header(content: bytes, length: int | None = None) -> Callable[[Path], None]:
    """Weights of another header, with a checksum that fits."""

    def change(folder: Path) -> None:
        data = (len(content) if length is None else length).to_bytes(8, "little") + content + b"\0" * 8
        (folder / "weights.safetensors").write_bytes(data)
        described(weights__sha256=hashlib.sha256(data).hexdigest())(folder)

    return change


def huge(shape: list[int], end: int) -> bytes:
    return json.dumps({"model.a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a function for preprocessing": (described(preprocess=node("os.system", "touch owned")), "preprocess._target_"),
    "a network for preprocessing": (described(preprocess=NET), "expected a Preprocess"),
    "a function for a correction": (
        described(preprocess__corrections=[node("compseg.files.atomic_text", path="owned", text="x")]),
        "preprocess.corrections[0]._target_",
    ),
    "a polynomial of 65536": (
        described(preprocess__corrections=[node("compseg.preprocessing.Detrend", channels=65_536, degree=65_000)]),
        "degree",
    ),
    "a polynomial by position": (
        described(preprocess__corrections=[node("compseg.preprocessing.Detrend", 65_536, 65_000)]),
        "corrections[0]._args_[1]",
    ),
    "a function for pseudo-labels": (described(pseudo_labels=node("torch.load", "x")), "pseudo_labels._target_"),
    "a network for pseudo-labels": (described(pseudo_labels=NET), "expected a FisherPseudoLabels"),
    "other channels": (described(channels__count=4), "expected 4"),
    "channels without end": (described(channels__count=10**12), "channels"),
    "wavenumbers that are words": (described(channels__values=["a"] * 3), "channels.values"),
    "an unknown type": (described(dtype="object"), "dtype"),
    "an unknown tissue rule": (described(tissue_rule="os.system"), "tissue_rule"),
    "a threshold that is none": (
        described(threshold={"value": float("nan"), "how": "", "low": 0, "high": 0}),
        "thresh",
    ),
    "a threshold without words": (described(threshold={"value": 0.5}), "segmenter.json"),
    "a newer format": (described(format=99), "newer"),
    "a format that is a word": (described(format="3"), "format"),
    "a format that is true": (described(format=True), "format"),
    "no format": (text("{}"), "format"),
    "no JSON": (text("model: UNet"), "not a segmenter's description"),
    "a list": (text("[]"), "not a segmenter's description"),
    "brackets": (text("[" * 10**6), "not a segmenter's description"),
    "a long description": (text(" " * 2**25 + "{}"), "bytes"),
    "a checksum that is none": (described(weights=None), "not a segmenter's description"),
    "another checksum": (described(weights__sha256="0" * 64), "its checksum"),
    "weights elsewhere": (described(weights__file="/etc/passwd", weights__sha256="0" * 64), "its checksum"),
    "a pickle for weights": (header(b"", 2**40), "cannot be read"),
    "a header of gigabytes": (header(b"{}", 2**62), "cannot be read"),
    "tensors larger than the file": (header(huge([10**6, 10**6], 4 * 10**12)), "cannot be read"),
    "a shape larger than its bytes": (header(huge([10**6, 10**6], 8)), "cannot be read"),
    "a part that there is not": (header(huge([2], 8).replace(b"model.a", b"other.a")), "cannot be read"),
    "an old pickle": (old(lambda path: path.write_bytes(pickle.dumps(Harm())) and None), "cannot be read"),
    "an old pickle in a zip": (old(zipped(zipfile.ZIP_STORED, pickle.dumps(Harm()))), "cannot be read"),
    "an old compressed file": (old(zipped(zipfile.ZIP_DEFLATED, pickle.dumps({}))), "more than its size"),
    "an old tensor larger than stored": (old(larger_than_stored), "larger than the file"),
}
CASES = {f"model: {name}": word for name, (_, word) in MODELS.items()} | {
    f"folder: {name}": word for name, (_, word) in FOLDERS.items()
}

TRAP = "from pathlib import Path\nPath('owned').write_text('imported')\n"
STUB = """
from pathlib import Path
from torch import nn
class Unet(nn.Module):
    def __init__(self, encoder_name="resnet34", encoder_weights="imagenet", in_channels=3, classes=1, **kwargs):
        super().__init__()
        Path("owned").write_text("fetched")
def create_model(arch): Path("owned").write_text("made")
def from_pretrained(name): Path("owned").write_text("fetched")
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    pytest.importorskip("monai")
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("trap", "compseg_trap"):
        (folder / f"{name}.py").write_text(TRAP)
    model = folder / SMP / "decoders" / "unet"
    model.mkdir(parents=True)
    for package in (folder / SMP, folder / SMP / "decoders", model):
        (package / "__init__.py").touch()
    (folder / SMP / "__init__.py").write_text(
        f"from {SMP}.decoders.unet.model import Unet, create_model, from_pretrained"
    )
    (model / "model.py").write_text(STUB)
    path = os.pathsep.join([str(folder), *sys.path])
    ended = subprocess.run(
        [sys.executable, __file__],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_there_are_enough():
    assert len(CASES) >= 60
    assert all(
        any(f'"{prefix}' in json.dumps(made) for made, _ in MODELS.values()) for prefix in ("compseg.", "torch.nn.")
    )
    assert all(any(f'"{prefix}' in json.dumps(made) for made, _ in MODELS.values()) for prefix in (MONAI, SMP))


def test_the_harmless_one_loads(outcomes):
    assert outcomes["harmless"] == {"error": None, "events": [], "files": [], "modules": []}


@pytest.mark.parametrize("case", CASES)
def test_nothing_happens_but_one_line(outcomes, case):
    found = outcomes[case]
    assert found["events"] == []
    assert found["files"] == []
    assert found["modules"] == []
    assert found["error"] is not None, "it loads"
    assert "\n" not in found["error"]
    assert CASES[case] in found["error"]
    assert "segmenter.json" in found["error"] or "weights." in found["error"]
    assert len(found["error"]) < 700


def test_memory_stays_bounded(outcomes):
    assert outcomes["memory"] < 1.5e9


# In a process of its own, from here on.

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STARTING = ("subprocess", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "socket", "urllib", "ftplib")
CHANGING = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.link",
    "os.symlink",
    "shutil",
    "ctypes.dlopen",
)


def main() -> None:
    import resource

    import torch

    from compseg.errors import CompsegError
    from compseg.inference import Segmenter, load_segmenter
    from compseg.models import UNet
    from compseg.preprocessing import Preprocess
    from compseg.samples import Channels

    # What is known is imported before, so that what is new later was brought by a description.
    for known in (
        f"{MONAI}",
        "monai.networks.blocks",
        "monai.visualize",
        SMP,
        "compseg.inference.cam",
        "encodings.cp437",
        "torch._dynamo",  # by which torch gives some random numbers a shape
    ):
        importlib.import_module(known)
    torch.set_num_threads(1)
    watched: list[str] = []
    watching = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if writes or event.startswith((*STARTING, *CHANGING)):
            watched.append(f"{event} {arguments!r:.200}")

    sys.addaudithook(hook)
    good = Path("good")
    model_node, preprocess_node = GOOD["model"], GOOD["preprocess"]
    made = Segmenter(
        UNet(3, width=4, depth=1), Preprocess(3), model_node, preprocess_node, Channels(3), dtype="float32"
    )
    made.save(good)
    files = {path.name: path.read_bytes() for path in good.iterdir()}
    changes: dict[str, Callable[[Path], None]] = {"harmless": lambda _: None}
    changes |= {
        f"model: {name}": described(model=model) for name, (model, _) in MODELS.items() if name != "nested without end"
    }
    changes |= {f"folder: {name}": change for name, (change, _) in FOLDERS.items()}

    def endless(folder: Path) -> None:  # deeper than json.dumps goes
        inner = json.dumps(NET)
        for _ in range(2000):
            inner = '{"_target_": "compseg.models.MeanOfOutputs", "net": ' + inner + "}"
        plain = json.loads((folder / "segmenter.json").read_text()) | {"model": "HERE"}
        plain.pop("sha256")
        (folder / "segmenter.json").write_text(json.dumps(plain).replace('"HERE"', inner))

    changes["model: nested without end"] = endless
    outcomes: dict[str, Any] = {}
    try:
        for harmless in (good, Path(__file__).parent / "stored" / "format_2"):
            load_segmenter(harmless)  # what is imported late is imported now
    except CompsegError as error:
        raise SystemExit(str(error)) from error
    for number, (name, change) in enumerate(changes.items()):
        folder = Path(f"case_{number}")
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        change(folder)
        files_before, modules_before, error_line = set(Path.cwd().rglob("*")), set(sys.modules), None
        watched.clear()
        watching = True
        try:
            load_segmenter(folder)
        except CompsegError as error:
            error_line = str(error)
        finally:
            watching = False
        outcomes[name] = {
            "error": error_line,
            "events": list(watched),
            "files": [str(path) for path in set(Path.cwd().rglob("*")) - files_before],
            "modules": sorted(set(sys.modules) - modules_before),
        }
    outcomes["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
