"""What the trials of a group learn, and how an epoch of it is cut into steps."""

from dataclasses import dataclass

from hpjax.data.splits import Split


@dataclass(frozen=True)
class Task:
    """What every trial of the group is trained on, and how an epoch is cut into steps."""

    train: Split
    evaluated: dict[str, Split]  # the splits that can be evaluated, by name
    batch_size: int
    keep_remainder: bool = True  # train on the last, partial batch too
    eval_batch_size: int = 250
    streamed: bool = False  # training images stay with the host; each batch is brought to the device

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        full, rest = divmod(len(self.train), self.batch_size)
        return full + bool(rest and self.keep_remainder)
