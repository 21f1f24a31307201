"""The configuration's sections on what is learned: of which data, and with which loss."""

from dataclasses import dataclass

from hpjax.config import rules
from hpjax.config.rules import Form, field
from hpjax.tasks import LOSSES, METRICS


@dataclass(frozen=True)
class DataConfig:
    """Which images are learned, and how they reach the device."""

    name: str = field(
        "auto",
        "where images come from",
        choices={
            "auto": "what data.dir or data.train names, else the Intel images in data/, else drawn scenes",
            "intel_scenes": "the Intel images, prepared by hpjax.data.prepare or in their folders",
            "folder": "data.dir, or data.train and data.test, with a folder of images per class",
            "digits": "the 1,797 handwritten digits of scikit-learn, enlarged",
            "synthetic_scenes": "drawn scenes of the six Intel classes",
            "arrays": "those that run_sweep(…, data=…) is given, from Python",
        },
        forms=(
            Form("tfds:NAME", r"tfds:.+", "a data set of TensorFlow Datasets"),
            Form("npz:PATH", r"npz:.+", "arrays in a file of NumPy: x_train, y_train, x_test, y_test"),
            Form("FILE.py:FUNCTION", rules.OWN, 'of your own: returns {"train": (x, y), "test": (x, y)}'),
        ),
        path=True,
    )
    dir: str = field("", "folder or archive (zip, tar) of all images; empty: data/", path=True)
    train: str = field("", "instead of dir, the folder or archive of training classes", path=True)
    test: str = field("", "and that of test classes; empty: a fifth of train is held out", path=True)
    image_size: int = field(
        0,
        "side of the square images in pixels; 0: 150, synthetic_scenes 64, digits 48, arrays their own, tfds "
        "its own where that is square and at least 48",
        rules.SIDE,
        tuples=rules.SIDES,
        axis="image_size",
    )
    channels: int = field(0, "1: grey images, 3: colours; 0: 3, arrays as they are", rules.CHANNELS)
    normalize: str = field(
        "none",
        "what is taken from inputs (images of bytes as numbers from 0 to 1), and what they are divided by",
        choices={
            "none": "0 and 1",
            "dataset": "mean and deviation of the training examples, by channel or feature",
            "imagenet": "those of ImageNet's colours",
        },
        tuples=rules.MEAN_AND_STD,
    )
    validation_fraction: float = field(0.0, "share held out to select on; 0: 0.1 in a search", rules.FRACTION)
    augment: str = field(
        "none",
        "random changes of training images",
        axis="augment",
        choices={
            "none": "none",
            "flip": "half are mirrored",
            "flip_crop": "and moved by up to 1/8 of the side",
        },
    )
    max_train_examples: int = field(0, "at most so many to learn, balanced; 0: all", rules.COUNT_OR_0)
    max_test_examples: int = field(0, "at most so many to test on, balanced; 0: all", rules.COUNT_OR_0)
    residency: str = field(
        "auto",
        "where images live",
        choices={
            "auto": "on the device where they fit, else they are streamed",
            "device": "on the device",
            "stream": "in the host's memory; batches are read ahead through grain",
        },
    )
    remainder: str = field(
        "pad",
        "the last, partial training batch",
        choices={"pad": "kept, filled up, and what was filled up is masked", "drop": "left out"},
    )
    on_bad_image: str = field(
        "fail",
        "what an image that can't be read does",
        choices={"fail": "ends the sweep before it trains, named", "skip": "is left out and counted"},
    )


@dataclass(frozen=True)
class TaskConfig:
    """What is learned of the data: which loss, and what is measured."""

    loss: str = field(
        "cross_entropy",
        "what is made small",
        choices={name: loss.doc for name, loss in LOSSES.items()},
        forms=(Form("FILE.py:FUNCTION", rules.OWN, "of model output and target: a loss per example"),),
        path=True,
    )
    metrics: tuple[str, ...] = field(
        (),
        "what is measured besides, the first one ranks trials; (): accuracy, of labels f1 too, of numbers "
        "mae and r2",
        choices={name: metric.doc for name, metric in METRICS.items()},
    )
    class_weights: str = field(
        "none",
        "how much examples of each class count (positive ones of each label)",
        choices={"none": "equally", "balanced": "the rarer the more, so that all classes count equally"},
        tuples=rules.WEIGHTS,
    )
