"""Draws flags with values of any kind."""

from hypothesis import strategies as st

from hpjax.config import Config, to_dict

SECTIONS = {name: value for name, value in to_dict(Config()).items() if isinstance(value, dict)}
FIELDS = [f"{section}.{field}" for section, fields in SECTIONS.items() for field in fields]
# Measuring layouts is tested elsewhere and takes long; so would images of a megapixel.
LEFT_ALONE = {"lanes.strategy", "lanes.count", "lanes.tune", "data.image_size"}
LEFT_ALONE |= {"data.dir", "data.train", "data.test"}  # they are in the trees below
NUMBERS = ("0", "1", "2", "3", "-1", "0.5", "1e-3", "1e-30", "1e30", "nan", "inf", "-inf", "1e999", "9" * 30)
WORDS = (
    "", " ", "None", "True", "adam", "sgd", "cosine", "resnet18", "custom_cnn", "drop", "stream", "tpe", "gp",
    "qmc", "cmaes", "random", "median", "hyperband", "test_loss", "validation_loss", "x.py:f", "tfds:nothing",
    "folder", "digits", "/dev/null", "ünï", "a" * 300, "${x}", "%s", "../..", "'", '"', "\\", "\t", "\x00",
)  # fmt: skip
TUPLES = (
    "()",
    "(1,)",
    "(0.1,0.2)",
    "(1,'a')",
    "((1,),)",
    "(3,3,3)",
    "[3,5,7]",
    "{}",
    "{'low':1}",
    "(1e400,)",
)
VALUES = st.sampled_from(NUMBERS + WORDS + TUPLES) | st.text(max_size=6)
AXES = st.sampled_from(
    (
        "learning_rate",
        "weight_decay",
        "batch_size",
        "kernel_width",
        "seed",
        "optimizer",
        "model",
        "epochs",
        "x",
    )
)


def text_of_a_flag(value: str) -> str:
    """Returns what a command line can hold of a value."""
    return value.replace("\x00", "")  # no command line can hold it


OVERRIDES = st.builds(
    lambda key, value: f"--config.{key}={text_of_a_flag(value)}", st.sampled_from(FIELDS), VALUES
)
SPACES = st.builds(
    lambda name, text: f"--space={name}={text_of_a_flag(text)}",
    AXES,
    st.lists(VALUES, min_size=1, max_size=3).map(",".join)
    | st.lists(VALUES, min_size=2, max_size=3).map(":".join),
)


def is_tried(flag: str) -> bool:
    """Returns whether a flag is one of those that are drawn."""
    return flag.split("=")[0].removeprefix("--config.") not in LEFT_ALONE
