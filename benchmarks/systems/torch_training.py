"""A plain training loop in PyTorch, judged on the test images after every epoch."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hpjax.data.dataset import Dataset, Split
from systems.torch_models import create_model

EVAL_BATCH_SIZE = 200


def train_custom_cnn(
    dataset: Dataset, epochs: int, batch_size: int, learning_rate: float, weight_decay: float, seed: int
) -> Iterator[dict[str, float]]:
    """Yields the losses and the test accuracy of each epoch, as means over images.

    Args:
      dataset: photographs as bytes, scaled to [0, 1] here.
      epochs: how many.
      batch_size: images of a step; the last one of an epoch has what is left.
      learning_rate: of Adam.
      weight_decay: L2 coefficient, coupled: added to the gradient.
      seed: of PyTorch's generator, which draws weights, dropout and the order of images.
    """
    torch.manual_seed(seed)
    model = create_model("custom_cnn", dataset.train.images.shape[1], len(dataset.classes)).to(device())
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    for _ in range(epochs):
        start, total = time.perf_counter(), 0.0
        model.train()
        for rows in torch.randperm(len(dataset.train)).split(batch_size):
            images, labels = _batch(dataset.train, rows)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        test_loss, test_accuracy = _judge(model, dataset.test)
        yield {
            "train_loss": total / len(dataset.train),
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "seconds": time.perf_counter() - start,
        }


def device() -> str:
    """Returns what PyTorch computes on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@torch.no_grad()
def _judge(model: nn.Module, split: Split) -> tuple[float, float]:
    model.eval()
    loss = correct = 0.0
    for rows in torch.arange(len(split)).split(EVAL_BATCH_SIZE):
        images, labels = _batch(split, rows)
        logits = model(images)
        loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        correct += int((logits.argmax(-1) == labels).sum())
    return loss / len(split), correct / len(split)


def _batch(split: Split, rows: Tensor) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(split.images[rows.numpy()]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(split.labels[rows.numpy()]).long()
    return images.to(device()).float() / 255, labels.to(device())
