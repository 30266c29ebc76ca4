from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from compseg.phantom import PhantomSource

CONF = Path(__file__).parents[2] / "conf" / "source"


@pytest.fixture(scope="session")
def preset() -> Callable[..., PhantomSource]:
    """A preset's source, `preset("phantom_hard", size=16)`."""

    def make(name: str, **changes: Any) -> PhantomSource:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(name, [f"{key}={value}" for key, value in changes.items()])
        return instantiate(config)

    return make
