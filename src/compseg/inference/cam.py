"""Class activation maps of a trained classifier: what a user without a comparative head would do."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from compseg.comparative import masked_mean
from compseg.errors import CompsegError

SMALLEST, LARGEST = 1e-12, 1 - 1e-6  # activations whose logits float32 can still distinguish


class GradCAM(nn.Module):
    """Grad-CAM or Grad-CAM++ of a segmenter that was trained as a classifier; MONAI computes it.

    With A_k the channels of a layer and y the sample's mean logit, MONAI gives `L = ReLU(sum_k w_k A_k)`, where w_k is
    the mean of dy/dA_k (Selvaraju et al., ICCV 2017, arXiv 1610.02391) or the weighted mean of its positive part
    (Chattopadhay et al., WACV 2018, arXiv 1710.11063).

    L has no unit. The usual picture divides it by its own maximum, so that the maximum is 1 on a healthy sample too.
    Here `a = p L / max L`, with p the classifier's probability: the map of a sample is as active
    as the sample is suspect. Nothing is fitted, and a map depends on its own sample alone.

    Args:
        net: The classifier, from `(B, C, H, W)` to logits `(B, 1, H, W)`; its sample's score is their mean over the
            tissue. Off tissue, the image is zero in every channel.
        plus_plus: Whether to compute Grad-CAM++.
        layer: Name of the module whose output is A. None: the last one before the output layer, since both sources
            take the last convolutional layer.

    Raises:
        CompsegError: MONAI is not installed, or the network has no such layer.
    """

    def __init__(self, net: nn.Module, plus_plus: bool = False, layer: str | None = None) -> None:
        super().__init__()
        self.net, self.layer = net, layer
        self._make = _of_monai("GradCAMpp" if plus_plus else "GradCAM")
        self._cam: Any = None  # made when first used: MONAI hooks on to the network, which is trained before that
        if layer is not None and layer not in dict(net.named_modules()):
            names = ", ".join(name for name, _ in net.named_children())
            raise CompsegError(
                f"method.cam.layer={layer}: the model has no such module; give one of {names}, or a part"
            )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, 2, H, W)`: logits of the activation a, and the classifier's own."""
        # Prediction runs without gradients, and these maps are made of gradients.
        with torch.inference_mode(False), torch.enable_grad():
            # Cloned, because a tensor made in inference mode can have no gradient.
            return torch.cat([self._of_one(x[i : i + 1].clone()) for i in range(len(x))])

    def _of_one(self, x: Tensor) -> Tensor:
        if self._cam is None:
            layer = self.layer or last_features(self.net, x)
            # MONAI restores the mode in which it found the model, and a new module is in training mode.
            self._cam = self._make(SampleScore(self.net).eval(), target_layers=f"net.{layer}")
        small = self._cam.compute_map(x, class_idx=0)
        # MONAI's backward pass leaves gradients in the weights.
        self.net.zero_grad()
        classifier: SampleScore = self._cam.nn_module.model
        scale = -(-x.shape[-1] // small.shape[-1])
        # Networks pad at the bottom and right, so their features may extend beyond the image there.
        full = interpolate(small, scale_factor=scale, mode="bilinear")[..., : x.shape[-2], : x.shape[-1]]
        full = full.where(on_tissue(x), 0)
        probability = torch.sigmoid(masked_mean(classifier.logits, on_tissue(x)))
        # A map that is zero throughout stays so instead of 0 / 0.
        activation = probability * full / full.amax().clamp(min=torch.finfo(full.dtype).tiny)
        return torch.cat([activation.clamp(SMALLEST, LARGEST).logit(), classifier.logits], dim=1).detach()


class SampleScore(nn.Module):
    """A segmenter as a classifier of samples, `(B, C, H, W)` to `(B, 1)`; keeps the logits of the last call."""

    logits: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """The mean logit over the tissue."""
        self.logits = self.net(x)[:, :1]
        return masked_mean(self.logits, on_tissue(x))[:, None]


def on_tissue(x: Tensor) -> Tensor:
    """Where a preprocessed image `(B, C, H, W)`, zero off tissue, shows tissue: `(B, 1, H, W)` bool."""
    return (x != 0).any(dim=1, keepdim=True)


@torch.no_grad()
def last_features(net: nn.Module, x: Tensor) -> str:
    """Name of the last module that gives more channels than the network does and runs only once.

    Raises:
        CompsegError: There is none.
    """
    runs: list[tuple[str, Any]] = []
    leaves = [(name, module) for name, module in net.named_modules() if not any(module.children())]
    hooks = [m.register_forward_hook(lambda *call, name=name: runs.append((name, call[2]))) for name, m in leaves]
    maps = net(x).shape[1]
    for hook in hooks:
        hook.remove()
    features = [name for name, out in runs if isinstance(out, Tensor) and out.ndim == 4 and out.shape[1] > maps]
    # Of a module that runs twice, MONAI would take the gradient of the first run and the output of the last.
    times = Counter(name for name, _ in runs)
    once = [name for name in features if times[name] == 1]
    if not once:
        raise CompsegError("method.cam.layer: the model has no layer of features before its output; name one yourself")
    return once[-1]


def _of_monai(name: str) -> Any:
    try:
        from monai import visualize
    except ImportError as error:
        raise CompsegError("method.cam: MONAI is not installed; pip install 'compseg[monai]'") from error
    return getattr(visualize, name)
