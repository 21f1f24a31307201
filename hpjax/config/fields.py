"""The configuration: every field with its default, its documentation and what it may hold."""

import dataclasses
from dataclasses import dataclass

from hpjax.config import rules
from hpjax.config.keeping import CheckpointConfig
from hpjax.config.learning import DataConfig, TaskConfig
from hpjax.config.rules import Form, field, list_fields
from hpjax.tasks import METRICS


@dataclass(frozen=True)
class ModelConfig:
    """Which network is trained."""

    name: str = field(
        "custom_cnn",
        "the network",
        axis="model",
        choices={
            "custom_cnn": "three convolutions with batch norm, then three dense layers",
            "resnet18": "the residual network of 18 layers",
            "resnet34": "that of 34",
        },
        forms=(Form("FILE.py:CLASS", rules.OWN, "a flax.nnx module of your own"),),
        path=True,
    )
    kernel_widths: tuple[int, ...] = field(
        (5, 5, 7), "custom_cnn: widths of its three square kernels", rules.WIDTHS, axis="kernel_width"
    )
    padding: str = field(
        "reference",
        "custom_cnn: pixels added around what its convolutions read",
        axis="padding",
        choices={"reference": "1, 1 and 0, whatever the widths", "same": "as many as keep the side"},
    )
    options: dict = field(
        {},
        "further arguments of the network's class, by name; docs/models.md lists those of each network; "
        "searched with --space=model.NAME=… (a program each, unless the class declares it dynamic)",
        rules.OPTIONS,
    )
    freeze: str = field(
        "none",
        "modules whose weights and batch statistics stay what they begin as, by name with + in between, e.g. "
        "conv1+layer1.0, or a tuple; their batch norm uses its running statistics; none: all are trained",
        rules.MODULES,
        tuples=rules.MODULE_NAMES,
        axis="freeze",
    )
    pretrained: str = field(
        "",
        "weights under PyTorch's names to start from: a .safetensors, .pth or .pt file, imagenet (of "
        "resnet18), or hf:OWNER/REPOSITORY[@REVISION]/FILE; empty: from scratch",
        path=True,
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights follow gradients."""

    name: str = field(
        "adam",
        "the rule",
        axis="optimizer",
        choices={
            "sgd": "plain gradient descent",
            "momentum": "gradient descent with momentum",
            "nesterov": "gradient descent with Nesterov's momentum",
            "adam": "first and second moments (b1, b2, eps)",
            "adamw": "Adam; its weight decay is always decoupled",
            "lamb": "AdamW, each layer's step scaled by the norm of its weights",
            "lion": "the sign of an averaged gradient (b1, b2); decay is always decoupled",
            "rmsprop": "the gradient over its root mean square (b2, eps), with momentum",
            "adafactor": "factored second moments; without momentum, b1, b2 and eps",
        },
        forms=(Form("FILE.py:FUNCTION", rules.OWN, "of one trial's numbers: your own, from optax's parts"),),
        path=True,
    )
    learning_rate: float = field(1e-4, "its peak", rules.POSITIVE, dynamic=True)
    weight_decay: float = field(0.0, "L2 coefficient", rules.NOT_NEGATIVE, dynamic=True)
    weight_decay_mode: str = field(
        "coupled",
        "where decay enters",
        axis="weight_decay_mode",
        choices={"coupled": "it is added to the gradient", "decoupled": "it shrinks weights, as in AdamW"},
    )
    weight_decay_on: str = field(
        "all",
        "which parameters decay",
        axis="weight_decay_on",
        choices={"all": "all", "kernels": "not biases, nor scales and shifts of norms (what has one axis)"},
    )
    head_factor: float = field(
        1.0,
        "the learning rate of the last layer over that of the others; its name is HEAD of the model's class, "
        "or it is what is created last",
        rules.POSITIVE,
        dynamic=True,
    )
    momentum: float = field(0.9, "of momentum, nesterov and rmsprop", rules.FRACTION, dynamic=True)
    b1: float = field(0.9, "decay of the first moment", rules.FRACTION, dynamic=True)
    b2: float = field(0.999, "decay of the second moment", rules.FRACTION, dynamic=True)
    eps: float = field(1e-8, "added to the denominator", rules.POSITIVE, dynamic=True)
    clip_norm: float = field(0.0, "largest norm of all gradients; 0: any", rules.NOT_NEGATIVE, dynamic=True)
    schedule: str = field(
        "constant",
        "the learning rate after the warm-up",
        axis="schedule",
        choices={
            "constant": "its peak",
            "cosine": "down to 0 as half a cosine",
            "linear": "straight down to 0",
        },
    )
    ema_decay: float = field(
        0.0,
        "share that an average of weights and batch statistics keeps at each step; the average is evaluated "
        "and handed over; 0: the weights themselves are",
        rules.FRACTION,
        dynamic=True,
    )
    warmup_fraction: float = field(
        0.0, "share of all steps with a linear warm-up", rules.FRACTION, dynamic=True
    )


@dataclass(frozen=True)
class TrainConfig:
    """How long and in what steps one trial trains."""

    epochs: int = field(10, "epochs of each trial", rules.COUNT, axis="epochs")
    batch_size: int = field(32, "images per step", rules.BATCH, axis="batch_size")
    precision: str = field(
        "float32",
        "what networks compute in",
        axis="precision",
        choices={"float32": "float32", "bfloat16": "parameters, statistics and loss stay float32"},
    )
    label_smoothing: float = field(
        0.0, "share of a label that goes to all classes", rules.FRACTION, dynamic=True
    )
    dropout_rate: float = field(0.5, "probability of dropping an activation", rules.FRACTION, dynamic=True)


@dataclass(frozen=True)
class PbtOptions:
    """What `sweep.pbt` may hold."""

    every_epochs: int = field(1, "members are compared every so many epochs", rules.COUNT)
    fraction: float = field(0.25, "so many of the worst go on from one of the best", rules.HALF)
    perturb: float = field(1.2, "by up to which a copy's values are multiplied or divided", rules.FACTOR)


@dataclass(frozen=True)
class SweepConfig:
    """Which trials are run."""

    space: dict = field(
        {}, "hyperparameter -> tuple of choices, or {low, high[, log][, step][, when]}", each=rules.AXIS
    )
    constraints: str = field(
        "all",
        "which settings of the space are tried",
        choices={"all": "all of them"},
        forms=(Form("FILE.py:FUNCTION", rules.OWN, "those to which your own gives True"),),
        path=True,
    )
    sampler: str = field(
        "grid",
        "which settings are tried",
        choices={
            "grid": "all combinations, in order",
            "random": "drawn independently",
            "qmc": "spread evenly (a scrambled Halton sequence)",
            "tpe": "tree-structured Parzen estimator: learns where good settings are dense",
            "gp": "Gaussian process; needs torch",
            "cmaes": "covariance matrix adaptation: moves a normal distribution",
        },
    )
    warm_start: str = field(
        "",
        "what a sampler that learns knows from the start: another workdir, a journal or SQLite file of "
        "Optuna's, or sqlite:///FILE (#NAME behind it where there are several studies)",
        path=True,
    )
    trials: int = field(0, "how many settings to try; 0: the whole grid", rules.COUNT_OR_0)
    extend: bool = field(
        False,
        "whether the sweep in the workdir, finished or not, goes on to more sweep.trials, sweep.seeds or "
        "train.epochs (with checkpoint.states) than it was begun with",
    )
    seeds: int = field(1, "how often each setting is run, each time with another seed", rules.COUNT)
    seed_values: tuple[int, ...] = field(
        (),
        "which seeds those are; (): seed, seed + 1, …; an axis of the space that is called seed sets it: "
        "--space=seed=0,1,2",
        rules.SEEDS,
    )
    final_seeds: int = field(
        0, "how many further seeds the best setting is run with at the end", rules.COUNT_OR_0
    )
    metric: str = field(
        "auto",
        "what ranks trials and is optimised",
        choices={
            "auto": "validation_accuracy where images are held out, else test_accuracy; or as task.metrics",
            "validation_loss": "on the images that are held out",
            "validation_accuracy": "on the images that are held out",
            "test_loss": "on the test images; not in a search",
            "test_accuracy": "on the test images; not in a search",
            "train_loss": "over the epoch's batches, as the weights moved",
        },
        forms=(
            Form("SPLIT_METRIC", rf"(validation|test)_({'|'.join(METRICS)})", "any of task.metrics"),
            Form("FILE.py:FUNCTION", rules.OWN, "of an epoch's columns, your own"),
        ),
        path=True,
    )
    select: str = field(
        "final",
        "which epoch ranks a trial",
        choices={"final": "its last one", "best": "its best one, whose weights are then kept"},
    )
    pruner: str = field(
        "none",
        "which trials end early",
        choices={
            "none": "none",
            "median": "those worse than the median of the others at the same epoch",
            "successive_halving": "all but the best share at each rung of epochs, asynchronously",
            "hyperband": "the same in several brackets with other first rungs",
            "wilcoxon": "those that a signed-rank test over epochs finds worse than the best",
            "threshold": "those beyond pruner_options' lower or upper",
            "patient": "those without a better epoch for pruner_options' patience",
        },
    )
    pruner_options: dict = field({}, "arguments of Optuna's pruner of that name")
    pbt: dict = field({}, "population based training; {}: off", options=PbtOptions)
    enqueue: tuple = field((), "settings to run first", each=rules.SETTING)


@dataclass(frozen=True)
class LanesConfig:
    """How trials share the device."""

    count: int = field(
        0,
        "lanes of one program; 0: as many as fit (an eighth of the trials where the sampler learns)",
        rules.COUNT_OR_0,
    )
    strategy: str = field(
        "auto",
        "how lanes are advanced",
        choices={"auto": "the fastest way, measured", "fused": "by one call", "sequential": "one by one"},
    )
    devices: int = field(0, "devices the lanes are spread over; 0: all", rules.COUNT_OR_0)
    tune: bool = field(False, "measure the lowering of each operation at plan time")
    data_order: str = field(
        "own",
        "the order in which a lane takes examples",
        choices={
            "own": "by its trial's seed and epoch alone; lanes in step share one batch",
            "shared": "of its group's one stream: results depend on when a trial got its lane",
        },
    )


@dataclass(frozen=True)
class Config:
    """One sweep."""

    seed: int = field(0, "seeds everything: initialisation, data order, dropout, the sampler", rules.SEED)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
    lanes: LanesConfig = dataclasses.field(default_factory=LanesConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    trackers: tuple[str, ...] = field(
        ("tensorboard",),
        "where curves also go, besides the tables",
        choices={
            "tensorboard": "event files below the workdir",
            "wandb": "Weights & Biases; offline below the workdir where nobody is logged in",
            "mlflow": "MLflow; a data base in the workdir unless MLFLOW_TRACKING_URI says otherwise",
        },
    )


FIELDS = list_fields(Config)  # by dotted key
