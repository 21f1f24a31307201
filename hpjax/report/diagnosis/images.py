"""Rules on the images themselves: classes of unequal size, test images that were trained on."""

from hpjax.report.diagnosis.finding import Finding
from hpjax.report.diagnosis.noise import CLEAR, image_sd
from hpjax.report.diagnosis.runs import Sweep

IMBALANCED = 2.0  # times its fair share: the commonest class alone then gives a misleading accuracy
SEVERAL = 10  # test images of a class: of fewer, none may be recognised by chance
MOST_NAMED = 3  # classes
MANY_COPIES = 0.01  # of the test images: as much as settings differ by


def class_imbalance(sweep: Sweep) -> Finding | None:
    """Says what always answering the commonest class would score, where classes are of unequal size."""
    counts, guess = sweep.facts.class_counts.get(sweep.split), sweep.facts.guess(sweep.split)
    winner = sweep.winner
    if not counts or len(counts) < 2 or guess is None or winner is None or not sweep.images:
        return None
    accuracy = sweep.accuracy(winner)
    fair = 1 / len(counts)
    if accuracy is None or guess < min(IMBALANCED * fair, (1 + fair) / 2):
        return None
    beats = accuracy > guess + CLEAR * image_sd(guess, sweep.images)
    return Finding(
        "class_imbalance",
        "info" if beats else "warning",
        f"{guess:.0%} of the {sweep.split} images are of one class: always answering it would score "
        f"{guess:.3g}, the best trial scores {accuracy:.3g}.",
        "Read accuracies against that number; balance the classes, or rank by a loss "
        f"(sweep.metric={sweep.split}_loss).",
        {"largest_share": guess, "accuracy": accuracy, "class_counts": list(counts), "beats_guessing": beats},
    )


def class_never_predicted(sweep: Sweep) -> Finding | None:
    """Names the classes that the winner took no test image for, though several are of them."""
    pairs = sweep.facts.predictions
    missing = [number for number, (images, taken) in enumerate(pairs) if images >= SEVERAL and not taken]
    if len(pairs) < 2 or not missing:
        return None
    images = sum(pairs[number][0] for number in missing)
    names = [sweep.facts.name_class(number) for number in missing[:MOST_NAMED]]
    names += [f"{len(missing) - MOST_NAMED} more"] * (len(missing) > MOST_NAMED)
    classes = "class is" if len(missing) == 1 else "classes are"
    return Finding(
        "class_never_predicted",
        "warning",
        f"{len(missing)} of {len(pairs)} {classes} never predicted by the winner ({', '.join(names)}), "
        f"though {images:,} test images are of {'it' if len(missing) == 1 else 'them'}.",
        "Look at the training images of that class: are there enough, under the right name, and do they show "
        "what the test images show? Else train longer.",
        {"classes": missing, "images": images, "of": len(pairs)},
    )


def train_images_in_test(sweep: Sweep) -> Finding | None:
    """Says how many test images are training images as well, to the last pixel."""
    copies, images = sweep.facts.copies_of_train, sweep.facts.images.get("test", 0)
    if not copies or not images:
        return None
    share = copies / images
    return Finding(
        "train_images_in_test",
        "warning" if share >= MANY_COPIES else "info",
        f"{copies:,} of the {images:,} test images ({share:.1%}) are training images as well, to "
        "the last pixel.",
        "Take them out of one of the two: they make every test accuracy look better than it is.",
        {"copies": copies, "test_images": images, "share": share},
    )
