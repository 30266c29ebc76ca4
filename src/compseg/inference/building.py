"""Networks built from a description that a stranger may have written.

A description holds plain values and nodes: `_target_`, the dotted name of a class, beside its arguments. A node can
name nothing but a class of networks from a module on the list below, which is checked before anything is imported, and
no argument of it can load, fetch or take up more memory than its weights do. What remains is the constructor of a known
class, called with numbers and words. Needs torch and numpy alone.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from compseg.errors import CompsegError

T = TypeVar("T")
Shapes = Mapping[str, tuple[int, ...]]

PACKAGE = Path(__file__).parents[1]
OWN = ("models", "preprocessing", "comparative")  # rooms of pure torch, whose constructors only make tensors
# The constructors behind these names were read: with the arguments that are let through, none loads or fetches.
LIBRARIES = {
    "torch.nn": [
        f"torch.nn.modules.{name}"
        for name in (
            *("activation", "batchnorm", "channelshuffle", "container", "conv", "dropout", "flatten", "fold"),
            *("instancenorm", "linear", "normalization", "padding", "pixelshuffle", "pooling", "upsampling"),
        )
    ],
    "monai.networks.nets": [
        f"monai.networks.nets.{name}"
        for name in (
            *("attentionunet", "basic_unet", "basic_unetplusplus", "dynunet", "highresnet", "segresnet"),
            *("segresnet_ds", "swin_unetr", "unet", "unetr", "vnet"),
        )
    ],
    "monai.networks.blocks": [
        f"monai.networks.blocks.{name}"
        for name in (
            *("acti_norm", "aspp", "convolutions", "dynunet_block", "segresnet_block", "squeeze_and_excitation"),
            *("unetr_block", "upsample"),
        )
    ],
    "segmentation_models_pytorch": [
        f"segmentation_models_pytorch.decoders.{name}.model"
        for name in (
            *("deeplabv3", "dpt", "fpn", "linknet", "manet", "pan", "pspnet", "segformer", "unet", "unetplusplus"),
            "upernet",
        )
    ],
}
KNOWN = "compseg, torch.nn, monai.networks and segmentation_models_pytorch"
EXTRAS = {"monai": "compseg[monai]", "segmentation_models_pytorch": "compseg[smp]"}

MAX_DEPTH, MAX_VALUES = 16, 10_000  # of a description; the deepest of ours has 6 levels, the longest 40 values
MAX_INT = 65_536
# Numbers that a constructor takes to a power, makes a dense matrix of, or, unlike others, may have larger.
MAX_INTS = {"depth": 64, "depths": 64, "degree": 64, "multiple": 1024, "pixels": 10**9}
MAX_PARTS, MAX_CALLS = 10_000, 100_000  # modules and tensors; calls of torch: SwinUNETR makes 429 and 1307
SMALL, LARGE = 2**26, 2**33  # bytes: what anything may have beside its weights file's size, and the most of all

# Parts of an argument's name that say that it loads or fetches, or takes memory past the check.
FETCHES = {"pretrained", "weights", "url", "urls", "path", "checkpoint", "ckpt", "file", "filename", "hub", "repo"}
BESIDE_FETCHING = {"cache", "download", "progress", "revision", "device"}
HARMLESS = {"use_checkpoint", "drop", "dropout"}  # gradient checkpointing; `drop_path_rate` and its kind
# What a tensor without memory answers. MONAI and timm ask for the rates of a schedule; no shape depends on them.
ZEROS: dict[Any, Any] = {Tensor.item: 0, Tensor.__int__: 0, Tensor.__index__: 0, Tensor.__float__: 0.0}
HYDRA = {"_target_", "_args_", "_convert_", "_recursive_"}
# A constructor may open a path or fetch an address, so a word may look like neither.
WORD = re.compile(r"(?!\.)(?!.*\.\.)(?!.*\.(pt|pth|ckpt|bin|pkl|safetensors|onnx|json|ya?ml|py)$)[\w.,+ ()-]{0,100}")
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def build_safe(
    node: Any,
    kind: type[T],
    where: str,
    *,
    trust: Sequence[str] = (),
    shapes: Shapes | None = None,
    file_size: int = 0,
) -> T:
    """Build a network, a head or a correction from a description that may be a stranger's.

    It is built twice: first without memory, to count what it holds and compare it with the weights; then in earnest.

    Args:
        node: `_target_` and arguments, nested.
        kind: The class that it has to be of, `nn.Module` or below.
        where: Names the description in errors, for example `run/segmenter/segmenter.json: model`.
        trust: What the user trusts beyond the list: packages, of which network classes may be built, or the full dotted
            name of one function or class, which may be anything.
        shapes: Names and shapes of the weights that it is to be given; None: they are not compared.
        file_size: Bytes of the file that holds them.

    Raises:
        CompsegError: The description asks for code outside the list, for more memory than its weights take up, or for
            an argument that loads or fetches; it does not fit the weights; or its class refuses the arguments.
    """
    trust = [trust] if isinstance(trust, str) else list(trust)
    # All of it is checked before any of it runs, so that a refusal leaves nothing behind.
    plan = _Checker(trust).checked(node, where)
    # Half precision becomes float32, and a constructor may make as much again meanwhile.
    limit = min(SMALL + 4 * file_size, LARGE)
    with _errors(where), _counted(limit), torch.device("meta"), _WithoutMemory(limit):
        dry = _construct(plan)
    # A network where preprocessing is expected would fail later, in a place that says nothing of the description.
    if not isinstance(dry, kind):
        raise CompsegError(f"{where}: expected a {kind.__name__}, got {type(dry).__name__}; {EXTRACT_AGAIN}")
    if shapes is not None:
        _compare(dry, shapes, where)
    with _errors(where), _counted(limit):
        made: T = _construct(plan)
    return made


EXTRACT_AGAIN = "get the segmenter from its author again, or extract it from the run again"


def targets_of(node: Any) -> list[str]:
    """Every `_target_` in a node: what a user who composed it trusts by name."""
    if isinstance(node, Mapping):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [target for value in node.values() for target in targets_of(value)]
    if isinstance(node, list | tuple):
        return [target for value in node for target in targets_of(value)]
    return []


def without_fetching(node: Any) -> Any:
    """A node of the user's own whose arguments that load or fetch are null: for one whose weights are at hand."""
    if isinstance(node, list | tuple):
        return [without_fetching(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    # Null rather than absent: the default may be what fetches.
    kept = {key: _unset(value) if _fetches(key) else without_fetching(value) for key, value in node.items()}
    module, _, attribute = str(node.get("_target_")).rpartition(".")
    target = getattr(sys.modules.get(module), attribute, None)  # of a network that exists, so nothing is imported
    defaults = _fetching_defaults(target) if callable(target) else {}
    return kept | {name: _unset(default) for name, default in defaults.items() if name not in node}


def _unset(value: Any) -> Any:
    return False if isinstance(value, bool) else None


def _fetches(name: str, beside: bool = False) -> bool:
    words = {name, *name.lower().split("_")}
    return not words & HARMLESS and bool(words & (FETCHES | BESIDE_FETCHING if beside else FETCHES))


def _fetching_defaults(target: Callable[..., Any]) -> dict[str, Any]:
    """Arguments that load or fetch unless they are given, such as `encoder_weights="imagenet"`."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:  # written in C
        return {}
    found = {p.name: p.default for p in parameters if _fetches(p.name) and p.default is not p.empty}
    return {name: default for name, default in found.items() if not (default is None or default is False)}


def _names(target: Callable[..., Any], count: int, where: str) -> list[str]:
    """The names of a target's first arguments, as many as are given by position."""
    try:
        parameters = list(inspect.signature(target).parameters.values()) if count else []
    except ValueError as error:  # written in C
        raise CompsegError(f"{where}._args_: {target} does not tell the names of its arguments; give them") from error
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    collects = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    names += collects * (count - len(names))
    if len(names) < count:
        raise CompsegError(f"{where}._args_: {count} arguments by position, expected at most {len(names)}; remove some")
    return names[:count]


class _Call(NamedTuple):
    """A node that has been checked."""

    target: Callable[..., Any]
    arguments: list[Any]
    options: dict[str, Any]


def _construct(plan: Any) -> Any:
    match plan:
        case _Call():
            arguments = [_construct(value) for value in plan.arguments]
            return plan.target(*arguments, **{key: _construct(value) for key, value in plan.options.items()})
        case dict():
            return {key: _construct(value) for key, value in plan.items()}
        case list():
            return [_construct(value) for value in plan]
        case _:
            return plan


class _Checker:
    """Translates a node into calls of allowed classes with plain values, and refuses what is neither."""

    def __init__(self, trust: Sequence[str]) -> None:
        self.trust, self.values = trust, 0

    def checked(self, value: Any, where: str, name: str = "", depth: int = 0) -> Any:
        """A value with every node in it translated.

        Args:
            value: Plain.
            where: Its place, for the message.
            name: Of the argument that it is, or is in; empty: of none.
            depth: Below the whole description.

        Raises:
            CompsegError: Something in it is not allowed.
        """
        self.values += 1
        # Before going deeper: Python's own recursion limit would end this in a traceback.
        if depth > MAX_DEPTH or self.values > MAX_VALUES:
            raise CompsegError(
                f"{where}: nested more than {MAX_DEPTH} deep, or more than {MAX_VALUES} values; {EXTRACT_AGAIN}"
            )
        if isinstance(value, Mapping):
            return self._node(value, where, depth) if "_target_" in value else self._options(value, where, depth)
        if isinstance(value, list | tuple):
            return [self.checked(item, f"{where}[{i}]", name, depth + 1) for i, item in enumerate(value)]
        self._plain(value, where, name)
        return value

    def _plain(self, value: Any, where: str, name: str) -> None:
        match value:
            case None | bool():  # before int, of which bool is a kind
                return
            case int():
                largest = MAX_INTS.get(name, MAX_INTS.get(name.split("_")[-1], MAX_INT))
                fine, expected = abs(value) <= largest, f"an integer up to {largest}"
            case float():
                fine, expected = math.isfinite(value), "a finite number"
            case str():
                fine, expected = bool(WORD.fullmatch(value)), "a word, and no path or address"
            case _:
                fine, expected = False, "a plain value"
        if not fine:
            raise CompsegError(f"{where}: expected {expected}, got {_short(value)}; {EXTRACT_AGAIN}")

    def _options(self, node: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
        options = {}
        for key, value in node.items():
            if key in HYDRA:
                continue
            inside = f"{where}.{_short(key, quoted=False)}"
            if not (isinstance(key, str) and key.isidentifier()) or key.startswith("_"):
                raise CompsegError(f"{inside}: expected the name of an argument; remove it")
            options[key] = self._argument(key, value, inside, depth)
        return options

    def _argument(self, name: str, value: Any, where: str, depth: int) -> Any:
        if _fetches(name, beside=True) and not (value is None or value is False):
            raise CompsegError(
                f"{where}={_short(value, quoted=False)}: a segmenter has all its weights in its folder and may "
                "not load or fetch any, nor choose a device; set it to null"
            )
        return self.checked(value, where, name, depth + 1)

    def _node(self, node: Mapping[Any, Any], where: str, depth: int) -> _Call:
        target = self._target(node["_target_"], f"{where}._target_")
        given = node.get("_args_", [])
        if not isinstance(given, list | tuple):
            raise CompsegError(f"{where}._args_: expected a list, got {_short(given)}; {EXTRACT_AGAIN}")
        # Arguments by position are held to what their names would be.
        arguments = [
            self._argument(name, value, f"{where}._args_[{i}]", depth)
            for i, (name, value) in enumerate(zip(_names(target, len(given), where), given, strict=True))
        ]
        options = self._options(node, where, depth)
        for name, default in _fetching_defaults(target).items():
            if name not in options:
                raise CompsegError(
                    f"{where}: without {name}, {node['_target_']} would fetch {_short(default)}; add {name}=null"
                )
        return _Call(target, arguments, options)

    def _target(self, name: Any, where: str) -> Callable[..., Any]:
        if not isinstance(name, str) or not DOTTED.fullmatch(name) or len(name) > 200:
            raise CompsegError(f"{where}: expected the dotted name of a class, got {_short(name)}; {EXTRACT_AGAIN}")
        # A full name is the user's word for this one thing, function or class, wherever it is found.
        if name in self.trust:
            trusted: Callable[..., Any] = _imported(name, where, pkgutil.resolve_name)
            return trusted
        module, _, attribute = name.rpartition(".")
        if module not in _importable() and not self._trusted(module):
            raise CompsegError(f"{where}={name}: outside the network classes of {KNOWN}; {_way_out(name)}")
        # Not getattr, which would let a module answer with anything, for example by importing it.
        found: Any = vars(_imported(module, where)).get(attribute)
        # A lazy module has no shapes before its first image, so they cannot be compared with the weights.
        if not (inspect.isclass(found) and issubclass(found, nn.Module)) or issubclass(found, LazyModuleMixin):
            raise CompsegError(
                f"{where}={name}: no class of networks with known shapes (torch.nn.Module); {_way_out(name, module)}"
            )
        # Modules import from each other: a class counts as its author's, not as that of whoever imported it.
        if found.__module__ not in _defining() and not self._trusted(found.__module__):
            raise CompsegError(
                f"{where}={name}: defined in {found.__module__}, outside the network classes of {KNOWN}; "
                f"{_way_out(name, module)}"
            )
        return found

    def _trusted(self, module: str) -> bool:
        # With the dot, or trust in `mylab` would extend to `mylab_of_others`.
        return any(f"{module}.".startswith(f"{package}.") for package in self.trust)


def _way_out(name: str, looked_in: str = "") -> str:
    """What to do about a target that is not allowed. The libraries' functions load, write and run: none is offered."""
    package, attribute = name.split(".")[0], name.rpartition(".")[2]
    if package in ("compseg", *(library.split(".")[0] for library in LIBRARIES)) and attribute[0].islower():
        return f"no segmenter needs it: {EXTRACT_AGAIN}"
    return f"if you trust it, pass trust=[{name if looked_in or package in KNOWN else package}]"


@cache
def _defining() -> set[str]:
    """Modules whose network classes may be built: the libraries', and our rooms' with what a user has put there."""
    # Listed as files and not imported: whether a module may be imported is what the list decides.
    files = (file for room in OWN for file in (PACKAGE / room).rglob("*.py"))
    names = {".".join(("compseg", *file.relative_to(PACKAGE).with_suffix("").parts)) for file in files}
    own = {name.removesuffix(".__init__") for name in names}
    return own | {"compseg.inference.cam"} | {name for modules in LIBRARIES.values() for name in modules}


@cache
def _importable() -> set[str]:
    """Modules that a target may be looked up in: those that define, and those that collect what others define."""
    return _defining() | LIBRARIES.keys()


def _imported(name: str, where: str, load: Callable[[str], Any] = importlib.import_module) -> Any:
    try:
        return load(name)
    except Exception as error:  # importing runs a library's code, which may fail in any way
        package = name.split(".")[0]
        raise CompsegError(
            f"{where}: {name} cannot be imported ({_first_line(error)}); "
            f"pip install '{EXTRAS.get(package, package)}', or the version that the segmenter was trained with"
        ) from error


def _compare(module: Any, shapes: Shapes, where: str) -> None:
    """Refuse weights of other names or shapes than the network's, before they are read."""
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    # The first difference in the network's own order tells most: later ones often follow from it.
    for name in [*expected, *shapes]:
        if expected.get(name) != shapes.get(name):
            raise CompsegError(
                f"{where}: does not fit the weights: {name} is {expected.get(name, 'absent')} here and "
                f"{shapes.get(name, 'absent')} there; copy both files of the same segmenter"
            )


@contextmanager
def _errors(where: str) -> Iterator[None]:
    """Anything that a constructor raises, as one line that names the description."""
    try:
        yield
    except CompsegError as error:
        raise CompsegError(f"{where}: {error}") from error
    except Exception as error:
        raise CompsegError(
            f"{where}: cannot be built ({type(error).__name__}: {_first_line(error)}); install the version that the "
            "segmenter was trained with, or extract it again"
        ) from error


@contextmanager
def _counted(limit: int) -> Iterator[None]:
    """Stop a constructor that makes too many modules, or too many bytes of parameters and buffers."""
    thread, parts, total = threading.get_ident(), 0, 0

    def registered(_parent: nn.Module, _name: str, part: Any) -> None:
        nonlocal parts, total
        if threading.get_ident() != thread or part is None:  # the hooks are the whole process's
            return
        parts += 1
        total += part.numel() * part.element_size() if isinstance(part, Tensor) else 0
        if parts > MAX_PARTS:
            raise CompsegError(f"more than {MAX_PARTS} modules and parameters; {EXTRACT_AGAIN}")
        _limited(total, limit)

    with ExitStack() as stack:
        for register in (
            register_module_buffer_registration_hook,
            register_module_module_registration_hook,
            register_module_parameter_registration_hook,
        ):
            stack.callback(register(registered).remove)
        yield


def _limited(taken: int, limit: int) -> None:
    if taken > limit:
        raise CompsegError(
            f"describes weights of {taken / 1e6:.0f} MB, more than the weights file holds; "
            "copy both files of the same segmenter"
        )


class _WithoutMemory(TorchFunctionMode):
    """Constructors on the meta device: numbers that are asked of a tensor without memory are zero."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.calls = limit, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.calls += 1
        # Copies of modules register nothing, but each copies its parameters here.
        if self.calls > MAX_CALLS:
            raise CompsegError(f"takes more than {MAX_CALLS} operations to build; {EXTRACT_AGAIN}")
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if func in ZEROS:
                return ZEROS[func]
            if func in (Tensor.normal_, Tensor.uniform_):
                return args[0]
            if func is Tensor.tolist and args[0].numel() <= MAX_VALUES:
                return np.zeros(args[0].shape).tolist()
        options = dict(kwargs or {})
        # Random numbers that nobody has memory for; torch would import its compiler for them, which takes seconds. What
        # `nn.init` fills comes by name, and what it calls comes here no more.
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_) and options["tensor"].is_meta:
            return options["tensor"]
        if options.get("device") is not None:  # a class's own choice, which takes memory: it is measured first
            self._measured(func(*args, **options | {"device": "meta"}))
        return self._measured(func(*args, **options))

    def _measured(self, result: Any) -> Any:
        if isinstance(result, Tensor):
            _limited(result.numel() * result.element_size(), self.limit)
        return result


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _short(value: Any, quoted: bool = True) -> str:
    text = repr(value) if quoted else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
