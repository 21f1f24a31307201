"""ResNet18's ImageNet weights, where they are at hand, give the features recorded of photographs."""

import json
import tarfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hpjax.config import parse_config
from hpjax.data.dataset import Dataset, Split
from hpjax.data.images import Picture, decode_image
from hpjax.lanes.group import create_program
from hpjax.train.evaluate import create_inference_state, predict
from hpjax.train.hparams import create_hparams
from hpjax.train.state import merge_model

SHARED = Path(__file__).parents[3] / "shared"
WEIGHTS, CHECK = SHARED / "weights" / "resnet18_imagenet.safetensors", SHARED / "weights" / "check.json"
PHOTOGRAPHS = SHARED / "intel" / "seg_test.tar"
SIZE, CLASSES = 150, 6

pytestmark = pytest.mark.skipif(
    not (WEIGHTS.is_file() and CHECK.is_file() and PHOTOGRAPHS.is_file()),
    reason=f"needs {WEIGHTS.name}, {CHECK.name} and the photographs in ../shared beside the repository",
)


def _read(names):
    with tarfile.open(PHOTOGRAPHS) as archive:
        contents = [archive.extractfile(name).read() for name in names]
    return np.stack([decode_image(Picture(n, 0, c), SIZE) for n, c in zip(names, contents, strict=True)])


def _load(photographs):
    """Returns the state of two trials as the program creates them from the pretrained weights."""
    split = Split(photographs, np.arange(len(photographs), dtype=np.int32) % CLASSES)
    dataset = Dataset("drawn", tuple("abcdef"), split, None, split, fingerprint="")
    config = parse_config(
        {"model": {"name": "resnet18", "pretrained": str(WEIGHTS)}, "train": {"batch_size": 2}}
    )
    program = create_program(config, dataset)
    return [program.create(create_hparams(seed=seed)).state for seed in (0, 1)]


def test_features_of_photographs_and_a_fresh_head():
    rows = json.loads(CHECK.read_text())["rows"]
    photographs = _read([row["image"] for row in rows])
    models = [merge_model(state) for state in _load(photographs)]
    heads = [np.asarray(model.fc.kernel[...]) for model in models]
    assert heads[0].shape == (512, CLASSES) and np.abs(heads[0]).min() > 0 and (heads[0] != heads[1]).any()

    (model, _) = models
    model.fc = nnx.Linear(512, 512, use_bias=False, rngs=nnx.Rngs(0))
    model.fc.kernel[...] = jnp.eye(512)
    features = predict(create_inference_state(model), photographs)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [r["l2_norm"] for r in rows], rtol=1e-3)
    # Recorded to five decimals.
    np.testing.assert_allclose(features[:, :8], [r["first_8"] for r in rows], rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(features.argmax(1), [r["argmax"] for r in rows])
