"""`python -m compseg.train`: train a CompSegNet, extract its segmenter, evaluate it and write the report."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from compseg.config import verb


@verb("train")
def main(cfg: DictConfig) -> float | None:
    """Train a CompSegNet from sample labels, extract its segmenter, evaluate it and write the report."""
    from compseg.learning import train
    from compseg.report import judge

    run = Path(HydraConfig.get().runtime.output_dir)
    first = train(cfg, run)
    if not (first and cfg.evaluate):
        return None
    return judge(run).metrics["val/loss"]


if __name__ == "__main__":
    main()
