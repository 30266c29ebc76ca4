"""Nothing is diseased where there is nothing."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from compseg.comparative.head import HeadOutput
from compseg.comparative.objectives.base import Objective


class OutsideTissue(Objective):
    """`(1/(H W)) sum over non-tissue of -log(1 - a)`: no activation outside the tissue (OpenVibSpec, 2022).

    The one objective that reads pixels outside the tissue; pools never do. Useful where maps are looked at as a whole,
    or a tissue mask will be missing later.
    """

    def statistics(self, out: HeadOutput, labels: Tensor, truth: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The sum of -log(1 - a) outside the tissue over all H W pixels, `(B, 1)`."""
        return softplus(out.logits[:, :1]).where(~out.tissue, 0).flatten(1).mean(1, keepdim=True)
