"""What people call fields and values elsewhere, so that a wrong name is answered with the right one."""

import difflib
from collections.abc import Iterable

_FIELDS = {
    "seed": "random_seed rng_seed random_state",
    "trackers": "tracker logger loggers logging",
    "model.name": "arch architecture network net backbone",
    "model.kernel_widths": "kernel_width kernel_size kernel_sizes kernel kernels ks",
    "model.options": "model_kwargs model_args model_params model_config kwargs",
    "model.freeze": "frozen freeze_layers frozen_modules freeze_modules",
    "model.pretrained": "weights init_from checkpoint_path",
    "data.name": "dataset data_set",
    "data.dir": "data_dir datadir data_path data_root root",
    "data.image_size": "img_size imgsz resolution image_width input_size",
    "data.augment": "augmentation augmentations aug transforms",
    "data.validation_fraction": "val_fraction val_split validation_split",
    "optimizer.name": "opt optim optimiser",
    "optimizer.learning_rate": "lr learn_rate step_size eta",
    "optimizer.weight_decay": "wd l2 decay weightdecay",
    "optimizer.weight_decay_on": "no_decay no_weight_decay bias_decay norm_decay",
    "optimizer.head_factor": "head_lr head_lr_factor head_multiplier lr_mult",
    "optimizer.ema_decay": "ema ema_beta model_ema_decay weight_ema swa",
    "optimizer.momentum": "mom mu",
    "optimizer.b1": "beta1 beta_1",
    "optimizer.b2": "beta2 beta_2",
    "optimizer.eps": "epsilon",
    "optimizer.clip_norm": "clip clipnorm grad_clip gradient_clip max_grad_norm",
    "optimizer.schedule": "scheduler lr_schedule lr_scheduler",
    "optimizer.warmup_fraction": "warmup warm_up warmup_steps warmup_epochs",
    "train.epochs": "epoch num_epochs n_epochs max_epochs nb_epochs",
    "train.batch_size": "bs batch batchsize",
    "train.precision": "dtype amp mixed_precision",
    "train.label_smoothing": "smoothing",
    "train.dropout_rate": "dropout drop_rate dropout_prob",
    "sweep.space": "search_space param_space parameters params",
    "sweep.constraints": "constraint constraints_func constraint_fn forbidden allowed",
    "sweep.sampler": "search searcher search_alg algorithm",
    "sweep.warm_start": "warmstart source_trials points_to_evaluate storage",
    "sweep.trials": "n_trials num_trials num_samples max_trials",
    "sweep.seeds": "n_seeds num_seeds repeats repetitions",
    "sweep.metric": "objective monitor",
    "sweep.pruner": "early_stopping pruning stopper",
    "lanes.count": "num_lanes n_lanes concurrency max_concurrent_trials",
    "checkpoint.keep": "max_to_keep keep_last save_top_k",
}
_VALUES = {
    "model.name": {"custom_cnn": "cnn convnet", "resnet18": "resnet resnet_18", "resnet34": "resnet_34"},
    "data.name": {
        "tfds:cifar10": "cifar cifar10 cifar_10",
        "tfds:cifar100": "cifar100 cifar_100",
        "tfds:mnist": "mnist",
        "tfds:fashion_mnist": "fashion_mnist fashionmnist fmnist",
        "tfds:svhn_cropped": "svhn",
        "tfds:imagenette": "imagenette",
        "intel_scenes": "intel",
        "folder": "image_folder imagefolder images",
        "synthetic_scenes": "synthetic fake random",
    },
    "data.augment": {"flip": "hflip random_flip mirror", "flip_crop": "crop random_crop standard"},
    "optimizer.name": {"momentum": "sgdm sgd_momentum", "nesterov": "nag", "rmsprop": "rms_prop rms"},
    "optimizer.schedule": {
        "constant": "none",
        "cosine": "cosine_decay cosine_annealing cos",
        "linear": "linear_decay",
    },
    "train.precision": {
        "float32": "fp32 f32 32 float full",
        "bfloat16": "bf16 fp16 float16 half 16 mixed amp",
    },
    "sweep.sampler": {
        "grid": "grid_search",
        "random": "random_search rand uniform",
        "qmc": "sobol halton quasi_random lhs",
        "tpe": "bayes bayesian bayesopt bayes_opt bo hyperopt optuna",
        "gp": "gaussian_process gpei botorch",
        "cmaes": "cma cma_es evolution",
        "random, with sweep.pruner=successive_halving": "asha hyperband bohb",
        "random, with sweep.pbt.every_epochs=1": "pbt population",
    },
    "sweep.metric": {
        "validation_accuracy or test_accuracy": "accuracy acc top1",
        "validation_loss or test_loss": "loss nll cross_entropy",
        "validation_accuracy": "val_accuracy val_acc valid_accuracy",
        "validation_loss": "val_loss valid_loss eval_loss",
        "test_accuracy": "test_acc",
    },
    "sweep.select": {"final": "last", "best": "max min"},
    "sweep.pruner": {
        "successive_halving": "asha sha halving async_hyperband",
        "hyperband": "bohb hb",
        "patient": "patience early_stopping",
    },
    "lanes.strategy": {"fused": "vmap parallel batched", "sequential": "serial loop one_by_one"},
    "trackers": {"tensorboard": "tb tensorboardx", "wandb": "wb weights_and_biases weights_biases"},
}
_FIELD_CALLED = {other: key for key, others in _FIELDS.items() for other in others.split()}
_VALUE_CALLED = {
    key: {other: value for value, others in names.items() for other in others.split()}
    for key, names in _VALUES.items()
}


def find_field(name: str, known: Iterable[str]) -> str:
    """Returns the dotted key of the field that a name stands for elsewhere, or that it ends; else nothing.

    Args:
      name: as it was given, with or without a section.
      known: the dotted keys of all fields.
    """
    leaf = _normalise(name.rpartition(".")[2])
    called = {key.rpartition(".")[2]: key for key in known if not key.endswith(".name")}
    return called.get(leaf) or _FIELD_CALLED.get(leaf, "")


def find_value(key: str, value: object, choices: Iterable[str]) -> str:
    """Returns which of a field's values is meant by another; nothing where that can't be told."""
    if not isinstance(value, str):
        return ""
    meant, choices = _normalise(value), list(choices)
    if other := _VALUE_CALLED.get(key, {}).get(meant):
        return other
    return next(iter(difflib.get_close_matches(meant, choices, 1)), "")


def _normalise(name: str) -> str:
    return name.strip().lower().replace("-", "_")
