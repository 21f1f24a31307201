"""Pretrained weights by name: huggingface_hub's real code on a cache laid out as the library lays it."""

import importlib.util
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from hpjax.errors import ModelError
from hpjax.models.pretrained import RESNET18, find_weights
from hpjax.models.torch_weights import load_state_dict

needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None, reason="needs huggingface_hub"
)


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """Returns an empty cache of the hub; there is no network, and torch's cache is empty."""
    folder = tmp_path / "hub"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    if importlib.util.find_spec("huggingface_hub") is not None:
        # The library reads its environment once, when it is imported.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def _keep(hub, repository, file, revision, branch="main"):
    """Lays a file into the cache as a download would: a blob, a snapshot that links to it, a branch."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    blob, link = folder / "blobs" / "0123abcd", folder / "snapshots" / revision / file
    for path in (blob, link, folder / "refs" / branch):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"conv1.weight": np.ones((2, 2), np.float32)}, blob)
    link.symlink_to(blob)
    (folder / "refs" / branch).write_text(revision)
    return link


@needs_hub
def test_imagenet_is_taken_from_the_cache(hub):
    kept = _keep(hub, RESNET18.repository, RESNET18.file, RESNET18.revision)
    assert find_weights("imagenet") == kept
    assert load_state_dict("imagenet")["conv1.weight"].shape == (2, 2)


@needs_hub
def test_another_revision_than_the_pinned_one_is_not_taken(hub):
    _keep(hub, RESNET18.repository, RESNET18.file, "f" * 40)
    with pytest.raises(ModelError, match="imagenet"):
        find_weights("imagenet")


def test_what_torchvision_left_serves_too(tmp_path):
    file = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert find_weights("imagenet") == file


@needs_hub
@pytest.mark.parametrize(
    ("name", "repository", "file"),
    [
        ("hf:me/net/model.safetensors", "me/net", "model.safetensors"),
        ("hf:me/net/deep/er/model.safetensors", "me/net", "deep/er/model.safetensors"),
        (f"hf:me/net@{'a' * 40}/model.safetensors", "me/net", "model.safetensors"),
        ("hf:me/net@v1.0/model.safetensors", "me/net", "model.safetensors"),
    ],
)
def test_any_file_of_the_hub(hub, name, repository, file):
    kept = _keep(hub, repository, file, "a" * 40, branch="v1.0" if "v1.0" in name else "main")
    assert find_weights(name) == kept


@needs_hub
@pytest.mark.parametrize("name", ["imagenet", "hf:me/net/model.safetensors"])
def test_without_network_and_cache_one_line_says_what_to_do(name):
    with pytest.raises(ModelError) as error:
        find_weights(name)
    text = str(error.value)
    assert name in text and "give its path" in text and "\n" not in text


@pytest.mark.parametrize("name", ["imagenet", "hf:me/net/model.safetensors"])
def test_without_the_library_one_line_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=f"{name}.*pip install huggingface_hub"):
        find_weights(name)


@pytest.mark.parametrize("name", ["hf:", "hf:net", "hf:me/net", "hf:me/net/", "hf:me/net/../x", "hf:me//x"])
def test_another_form_is_refused(name):
    with pytest.raises(ModelError, match="hf:OWNER/REPO"):
        find_weights(name)


def test_a_path_that_leads_nowhere(tmp_path):
    with pytest.raises(ModelError, match="no weights at .*imagenet.*safetensors"):
        find_weights(tmp_path / "missing.safetensors")
