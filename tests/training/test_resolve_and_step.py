"""How a step is computed: chosen by rule, nothing waits for the device, half precision stays in the network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import pad
from torch.utils._python_dispatch import TorchDispatchMode

from compseg.batches import RandomFlipRotate90, SpectralJitter
from compseg.batches.augmentation import augment
from compseg.comparative import FisherPseudoLabels
from compseg.config import check_targets, compose, conf_dir
from compseg.errors import CompsegError
from compseg.samples import Channels, SampleInfo
from compseg.training.build import build_module
from compseg.training.fit import speed_up
from compseg.training.resolve import advice, resolve, resolve_by_pseudo_labels

METHODS = sorted(file.stem for file in (conf_dir() / "method").glob("*.yaml"))
TINY = ["model=spectral_spatial", "model.width=8", "preprocess=snv", "channels=6", "augmentation=flip_rotate90"]


def cohort_of(*shapes):
    infos = [SampleInfo(str(number), number % 2) for number in range(len(shapes))]
    channels = Channels(shapes[0][2], tuple(range(shapes[0][2])))
    return SimpleNamespace(split=lambda _: infos, shape=lambda name: shapes[int(name)], channels=channels)


def module_of(*overrides):
    cfg = compose("train", [*TINY, *overrides])
    if cfg.method.baseline is not None:
        cfg.model = cfg.method.baseline
    if "magnify" in cfg.model:
        cfg.model.magnify = 1  # auto needs a cohort
    if "features" in (cfg.pseudo_labels or {}):
        cfg.pseudo_labels.features.magnify = 1
    torch.manual_seed(0)
    return build_module(cfg)


def batch_of(dtype=torch.float16, size=16):
    image = torch.from_numpy(np.random.default_rng(0).random((4, size, size, 6))).to(dtype).permute(0, 3, 1, 2)
    return {
        "image": image,
        "tissue": image[:, :1].float() > 0.1,
        "label": torch.tensor([0.0, 1.0, 0.0, 1.0]),
        "index": [5, 2, 9, 7],
        "truth": image[:, 1:2].float() > 0.7,
    }


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


def resolved(*overrides, shapes=((8, 8, 6), (8, 8, 6))):
    cfg = compose("train", [*TINY, "data.batch_size=2", "trainer.max_epochs=4000", *overrides])
    made = resolve(cfg, cohort_of(*shapes)).cfg
    check_targets(made)
    return made


def test_on_a_processor_all_stays_plain():
    cfg = resolved("trainer.accelerator=cpu")
    assert (cfg.trainer.precision, cfg.trainer.compile, cfg.trainer.memory_format) == (
        "32-true",
        None,
        "channels_last",
    )
    assert "fused" not in cfg.optimizer


def test_on_a_gpu(gpu):
    cfg = resolved()
    assert (cfg.trainer.precision, cfg.trainer.compile, cfg.optimizer.fused) == ("bf16-mixed", "default", True)
    reasons = resolve(compose("train", TINY), cohort_of((8, 8, 6))).reasons
    assert "trainer.precision=bf16-mixed (this GPU" in reasons
    assert "fused" not in resolved("optimizer=rmsprop").optimizer  # torch has no such kernel
    assert resolved("+optimizer.fused=false").optimizer.fused is False


def test_images_of_several_sizes_are_not_compiled_for(gpu):
    shapes = ((8, 8, 6), (12, 8, 6))
    assert resolved(shapes=shapes).trainer.compile is None
    assert resolved("data.crop=8", shapes=shapes).trainer.compile == "default"
    assert resolved("data.crop=10", shapes=shapes).trainer.compile is None


@pytest.mark.parametrize(("epochs", "mode"), [(3999, None), (4000, "default"), (-1, "default"), ("null", "default")])
def test_a_short_run_is_not_compiled_for(gpu, epochs, mode):
    """Two samples in batches of two: a step an epoch."""
    assert resolved(f"trainer.max_epochs={epochs}").trainer.compile == mode


@pytest.mark.parametrize(("devices", "mode"), [("1", "default"), ("8", None), ("[0,1]", None), ("'0,1'", None)])
def test_steps_are_those_of_one_of_all_devices(gpu, devices, mode):
    """4000 steps on one device are 500 on eight, and 2000 on two."""
    assert resolved(f"trainer.devices={devices}").trainer.compile == mode


@pytest.mark.parametrize(
    ("count", "spectral", "depth", "corrections"),
    [
        (3, False, 3, []),
        (32, False, 1, []),
        (6, True, 1, ["StandardNormalVariate"]),
        (32, True, 1, ["Detrend", "StandardNormalVariate"]),
    ],
)
def test_channels_decide_depth_and_corrections(count, spectral, depth, corrections):
    cohort = cohort_of((8, 8, count), (8, 8, count))
    cohort.channels = Channels(count, tuple(range(count)) if spectral else ())
    asked = compose("train", ["augmentation=none"])
    made = resolve(asked, cohort)
    assert (made.cfg.channels, made.cfg.model.depth) == (count, depth)
    assert [node["_target_"].rpartition(".")[2] for node in made.cfg.preprocess.corrections] == corrections
    assert (asked.channels, asked.model.depth, asked.preprocess.corrections) == ("auto", "auto", "auto")
    assert made.asked["model.depth"] == made.asked["channels"] == "auto"


def test_a_given_depth_stands_and_a_given_number_of_channels_is_checked():
    cohort = cohort_of((8, 8, 6))
    made = resolve(compose("train", ["model.depth=3", "channels=6"]), cohort)
    assert made.cfg.model.depth == 3
    assert "model.depth" not in made.asked
    with pytest.raises(CompsegError, match="channels=5: the cohort has 6"):
        resolve(compose("train", ["channels=5"]), cohort)


def marking(small, share=0.003, supervises=True):
    """A pseudo-labeller that was fitted, as far as `resolve_by_pseudo_labels` reads it."""
    labeller = FisherPseudoLabels(6, supervises=supervises)
    labeller.small, labeller.low_share = small, 0.001
    labeller.share.fill_(share)
    return labeller


@pytest.mark.parametrize(
    ("overrides", "labeller", "prior"),
    [
        ([], marking(small=True), 0.0015),  # half of a batch's samples are healthy, so half of .003
        ([], marking(small=False), 0.5),
        (["model=unet_stem"], marking(small=True, share=0.01), 0.005),
        (["method=supervised"], marking(small=True, supervises=False), 0.0015),
        (["method=topk", "pseudo_labels=fisher"], marking(small=True, supervises=False), 0.5),  # no pixel has a target
        (["model.prior=0.2"], marking(small=True), 0.2),
        (["method=neuron"], None, 0.5),
    ],
)
def test_where_targets_are_a_few_pixels_the_network_starts_at_their_share(overrides, labeller, prior):
    cfg = resolve(compose("train", overrides), cohort_of((8, 8, 6))).cfg
    model = resolve_by_pseudo_labels(cfg, labeller).cfg.model
    assert model.get("prior", model.get("net", {}).get("prior")) == pytest.approx(prior)


def test_without_a_pseudo_labeller_the_start_is_known_at_once():
    made = resolve(compose("train", ["method=paper2020"]), cohort_of((8, 8, 6)))
    assert (made.cfg.model.prior, made.asked["model.prior"]) == (0.5, "auto")
    assert "prior" not in made.reasons


def test_the_average_of_the_weights_starts_where_the_network_does():
    module = module_of("regulariser=mean_teacher")
    module.start_at(0.01)
    starts = [float(network.output.bias.detach().sigmoid()) for network in (module.segmenter, module.views.ema.module)]
    assert starts == pytest.approx([0.01, 0.01])


def test_what_is_given_stays():
    cfg = resolved("trainer.precision=16-mixed", "trainer.compile=default", "trainer.memory_format=contiguous")
    assert (cfg.trainer.precision, cfg.trainer.compile, cfg.trainer.memory_format) == (
        "16-mixed",
        "default",
        "contiguous",
    )
    with pytest.raises(CompsegError, match=r"trainer\.compile=fast: expected auto, null, default"):
        resolved("trainer.compile=fast")


@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_the_step_is_the_same_in_either_memory_format_and_names_stay(memory_format):
    plain, fast = module_of("model=unet_small", "model.width=8"), module_of("model=unet_small", "model.width=8")
    on_cuda = SimpleNamespace(root_device=torch.device("cuda"))  # so that this process's memory stays as it is
    speed_up(fast, SimpleNamespace(memory_format=memory_format, compile="default", strategy=on_cuda))
    assert list(fast.state_dict()) == list(plain.state_dict())
    torch.compiler.set_stance("force_eager")
    try:
        losses = [module.training_step(batch_of(), 0)["loss"].item() for module in (plain, fast)]
    finally:
        torch.compiler.set_stance("default")
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


class Waiting(TorchDispatchMode):
    """Names the operations that make the host wait for a device: those that read a value, or whose size is one."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__.strip(".")
        picks = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if picks or name.startswith(self.NAMES):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_for_the_device(method, monkeypatch):
    # These are a processor's way alone.
    for module in ("preprocessing.preprocess", "training.module"):
        monkeypatch.setattr(f"compseg.{module}.by_pixels", lambda _: False)
    monkeypatch.setattr("compseg.comparative.pseudo_labels.marking.unchanged", lambda *_: False)
    module = module_of(f"method={method}", "augmentation=flip_rotate90_jitter")
    module.segmenter.train()
    batch = batch_of()
    with Waiting() as waiting:
        module.training_step(batch, 0)["loss"].backward()
    assert not waiting.found


def test_waiting_is_seen():
    x = torch.rand(4)
    with Waiting() as waiting:
        x.sum().item()
        x[x > 0.5]
    assert waiting.found == ["_local_scalar_dense", "index"]


def test_augmented_batches_keep_their_channels_together():
    both = {"flip_rotate90": RandomFlipRotate90(), "jitter": SpectralJitter()}
    for augmentations in (both, {"flip_rotate90": RandomFlipRotate90()}):
        image = augment(batch_of(), augmentations, 0, 0)["image"]
        assert image.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("augmentation", ["flip_rotate90", "flip_rotate90_jitter", "none"])
def test_preprocessing_once_gives_what_preprocessing_twice_would(augmentation, own, monkeypatch):
    """With pseudo-labels: a pixel goes straight to where augmentation moves it if values stay; else augmented first."""
    module = module_of("method=compseg", f"augmentation={augmentation}")
    module.pseudo_labels.filter.normal_()
    module.pseudo_labels.level.fill_(0.5)
    module.pseudo_labels.own.fill_(own)
    module.preprocess.mean.normal_()
    batch = batch_of()
    batch["tissue"] = torch.rand(batch["tissue"].shape) > 0.3
    batch["truth"] = torch.rand(batch["tissue"].shape) > 0.5  # the labeller's replaces it
    module.sees_whole_samples = True
    prepared = [{**module._prepared(batch, module.augmentations)} for _ in range(2)]
    assert len(module.backgrounds["train"]) == (0 if "jitter" in augmentation else 4)
    module.backgrounds["train"] = {}
    monkeypatch.setattr("compseg.training.module.by_pixels", lambda _: False)
    expected = module._prepared(batch, module.augmentations)
    assert 0.02 < expected["truth"].float().mean() < 0.5
    for found in prepared:
        torch.testing.assert_close(found["image"], expected["image"], rtol=1e-4, atol=1e-5)
        assert found["image"].is_contiguous(memory_format=torch.channels_last)
        for part in ("tissue", "truth", "label"):
            assert torch.equal(found[part], expected[part])


def test_a_crop_has_a_background_of_its_own():
    module = module_of("method=compseg")
    module.pseudo_labels.filter.normal_()
    batches = [batch_of(), batch_of()]
    batches[1]["image"] = batches[1]["image"].flip(-1) * 2
    first, second = (module._backgrounds(batch, "train") for batch in batches)
    assert not torch.allclose(first, second)
    module.sees_whole_samples = True
    assert torch.equal(*(module._backgrounds(batch, "train") for batch in batches))


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_stays_in_the_network(method):
    """Head and objective under bf16 autocast give what they give in float32 for the same logits."""
    module = module_of(f"method={method}", "augmentation=none", "model.norm=batch")
    batch = batch_of(torch.float32)
    logits = module.segmenter(module.network_input(batch["image"], batch["tissue"])).detach()
    scale = torch.nn.Parameter(torch.ones(()))

    class Fixed(torch.nn.Module):
        def forward(self, image):
            return logits * scale

    module.segmenter = Fixed()
    plain = module.training_step(batch, 0)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module.training_step(batch, 0)["loss"]
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, rtol=0, atol=0)


def test_an_encoders_marks_are_made_once_and_move_with_the_picture():
    module = module_of("method=pictures", "augmentation=horizontal_flip", "pseudo_labels.features.encoder_weights=null")
    module.sees_whole_samples = True
    batch, labeller = batch_of(size=32), module.pseudo_labels
    seen = module.preprocess(batch["image"], batch["tissue"])
    expected = labeller(seen, batch["tissue"], batch["label"])
    assert expected[1].max() > 0
    torch.testing.assert_close(module._prepared(batch, {})["truth"], expected)
    labeller.features = torch.nn.Flatten()  # of no use
    moved, flipped = module._prepared(batch, module.augmentations), []
    for place in range(4):
        flipped.append(not torch.equal(moved["image"][place], seen[place]))
        back = moved["truth"][place].flip(-1) if flipped[-1] else moved["truth"][place]
        torch.testing.assert_close(back, expected[place])
    assert any(flipped)


def test_only_what_computes_contrasts_is_needed_for_prediction():
    spectra, pictures = module_of("method=compseg"), module_of("method=pictures")
    assert spectra.contrasts is spectra.pseudo_labels
    assert pictures.pseudo_labels is not None
    assert pictures.contrasts is None


@pytest.mark.parametrize(
    ("overrides", "channels", "said"),
    [
        ([], Channels(3), True),
        ([], Channels(1, names=("grey",)), True),
        ([], Channels(3, (1000.0, 1100.0, 1200.0), "cm-1"), False),
        ([], Channels(12), False),
        (["model=pretrained"], Channels(3), False),
        (["method=paper2020"], Channels(3), False),
        (["experiment=pictures"], Channels(3), False),
    ],
)
def test_who_trains_on_pictures_by_the_default_hears_of_the_experiment_for_them(overrides, channels, said):
    heard = advice(compose("train", overrides), channels)
    assert ("experiment=pictures" in heard) if said else heard is None


@pytest.mark.parametrize("spectral", [True, False])
def test_spectra_get_all_flips_and_pictures_those_they_bear(spectral):
    cohort = cohort_of(*[(8, 8, 1)] * 24)
    cohort.channels = Channels(1, (1000.0,), unit="cm-1") if spectral else Channels(1)
    generator = np.random.default_rng(0)
    # Bright at the top, each picture.
    images = {str(k): np.linspace(1, 0, 8)[:, None, None] + generator.normal(0, 0.1, (8, 8, 1)) for k in range(24)}
    cohort.strips = lambda name, _: [images[name]]
    cohort.tissue = lambda _: np.ones((8, 8), bool)
    cfg = compose("train", ["model=spectral_spatial", "preprocess=snv", "pseudo_labels=none", "data.batch_size=2"])
    chosen = resolve(cfg, cohort)
    assert chosen.cfg.augmentation.flip_rotate.ways == ("all" if spectral else "left_right")
    assert chosen.asked["augmentation.flip_rotate.ways"] == "auto"
    assert ("up and down 1.00" in chosen.reasons) is not spectral


def test_marks_are_those_of_the_size_that_a_sample_has_in_its_batch():
    """Smaller pictures are padded to the largest of their batch, which is another one in each epoch."""
    features = ["pseudo_labels.features.magnify=1", "pseudo_labels.features.encoder_weights=null"]
    module = module_of("method=pictures", "augmentation=none", *features)
    module.sees_whole_samples = True
    first = batch_of(torch.float32, size=32)
    padded = {name: pad(first[name], (0, 24, 0, 40)) for name in ("image", "tissue", "truth")}
    for batch in (first, {**first, **padded}, first):
        image = module.preprocess(batch["image"], batch["tissue"])
        expected = module.pseudo_labels(image, batch["tissue"], batch["label"])
        torch.testing.assert_close(module._prepared(batch, {})["truth"], expected)
