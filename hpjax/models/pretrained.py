"""Where pretrained weights lie: a path, a file of the Hugging Face hub, or torchvision's ImageNet weights."""

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from hpjax.config.paths import expand_path
from hpjax.errors import ModelError

IMAGENET = "imagenet"
_TORCHVISION = "resnet18-f37072fd.pth"  # the name under which torchvision keeps them
_FORM = "hf:OWNER/REPO/FILE or hf:OWNER/REPO@REVISION/FILE"


class HubFile(NamedTuple):
    """A file of the Hugging Face hub."""

    repository: str
    file: str
    revision: str | None = None  # None: the newest

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repository}{revision}/{self.file}"


# torchvision's IMAGENET1K_V1, under torchvision's names; BSD-3-Clause. Pinned: results must not move with it.
RESNET18 = HubFile("timm/resnet18.tv_in1k", "model.safetensors", "590dfdd48494d2316a8385e1ca7fbec3b9359b35")


def find_weights(name: str | os.PathLike) -> Path:
    """Returns the file that `model.pretrained` names.

    What is in a cache is taken without asking the network: that of `huggingface_hub`, or, for `imagenet`,
    what torchvision left in `$TORCH_HOME/hub/checkpoints`.

    Args:
      name: a path; `imagenet`; or `hf:OWNER/REPO[@REVISION]/FILE`.

    Raises:
      ModelError: There is no such file, or it can't be fetched; says what to do.
    """
    text = os.fspath(name)
    if text == IMAGENET:
        return _find_imagenet()
    if text.startswith("hf:"):
        wanted = _parse(text)
        return _find_cached(wanted) or _fetch(wanted, text)
    path = Path(expand_path(text))
    if not path.is_file():
        raise ModelError(
            f"model.pretrained={text!r} is not allowed: no weights at {path}; expected {IMAGENET}, {_FORM}, "
            "or a .safetensors, .pth or .pt file"
        )
    return path


def hash_weights(name: str | os.PathLike) -> str:
    """Returns the SHA-256 of the file that `model.pretrained` names.

    Raises:
      ModelError: As `find_weights` does, or the file can't be read.
    """
    path = find_weights(name)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"can't read weights from {path}: {error.strerror or error}") from error


def _find_imagenet() -> Path:
    torchvisions = _torch_home() / "hub" / "checkpoints" / _TORCHVISION
    if (cached := _find_cached(RESNET18)) is not None:
        return cached
    return torchvisions if torchvisions.is_file() else _fetch(RESNET18, IMAGENET)


def _torch_home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser()


def _parse(text: str) -> HubFile:
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+?))?/([\w.-]+(?:/[\w.-]+)*)", text)
    if match is None or ".." in match[3].split("/"):
        raise ModelError(f"model.pretrained={text!r} is not allowed: expected {_FORM}")
    return HubFile(match[1], match[3], match[2])


def _find_cached(wanted: HubFile) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(wanted.repository, wanted.file, revision=wanted.revision)
    except ValueError as error:  # a name that the hub allows for no repository
        raise ModelError(f"model.pretrained={wanted} is not allowed: {_first_line(error)}") from None
    return Path(found) if isinstance(found, str) else None


def _fetch(wanted: HubFile, given: str) -> Path:
    """Returns a file of the hub, brought into huggingface_hub's own cache."""
    by_hand = f"download {wanted.file} of {wanted.repository} elsewhere and give its path"
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ModelError(
            f"model.pretrained={given!r} needs huggingface_hub (pip install huggingface_hub), or {by_hand}"
        ) from None
    try:
        return Path(hf_hub_download(wanted.repository, wanted.file, revision=wanted.revision))
    except Exception as error:  # of the library's own kinds, its HTTP client's, and the system's
        raise ModelError(
            f"model.pretrained={given!r} can't be fetched ({type(error).__name__}: {_first_line(error)}): "
            f"check the name and the network, or {by_hand}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
