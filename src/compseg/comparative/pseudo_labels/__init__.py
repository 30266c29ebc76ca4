"""Pseudo-labels without a network: one linear filter of the spectrum that finds the regions only disease samples have.

A network trained on a sample's label alone may use anything that tells samples apart: thickness, patient, array. None
of these explains contrast *within* disease samples that healthy samples do not have. The pseudo-labeller looks for the
one direction in channel space that shows such contrast, in closed form and in seconds, and marks the region it finds; a
segmenter is then trained on that region as on an annotation. The only supervision is still the paper's idea: to compare
what disease samples contain with what healthy ones do not.

For pictures, whose pixels say nothing singly, `encoder` has small networks on the features of an encoder that was
trained elsewhere in place of the filter; the rest is of the filter. Both are a `base.PseudoLabels`.

Read in this order: `labeller` (`FisherPseudoLabels.fit`), `choice` (`best_at`), `marking` (`Marking.mark`, `mark`),
`small_targets`, `spectra`. Many fits are made to the same pixels, three modes to two halves and to all of them, so what
they share is computed once: the scatter within samples, and in each round one product of all pixels with the directions
of all fits.
"""

from compseg.comparative.pseudo_labels.base import PseudoLabels
from compseg.comparative.pseudo_labels.encoder import EncoderPseudoLabels
from compseg.comparative.pseudo_labels.labeller import FisherPseudoLabels
from compseg.comparative.pseudo_labels.spectra import sum_of_spectra

__all__ = ["EncoderPseudoLabels", "FisherPseudoLabels", "PseudoLabels", "sum_of_spectra"]
