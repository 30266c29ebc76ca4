"""How good a set of activation maps is: metrics with their intervals, thresholds, and signs of shortcuts.

The modules are imported one by one, so that a metric's direction does not cost torch.
"""
