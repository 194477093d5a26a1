"""How large a difference of two accuracies must be to matter, where a claim does not say it.

No fixed number of points does: 0.5 points are a third of the errors that a good network makes on MNIST, and at 55 % on
360 images less than two images. The margin of a setting is therefore the larger of

    SHARE (5 %) of the baseline's errors                     what matters: one error in twenty, at any accuracy
    sqrt(a (1 - a) / N), the binomial standard error         what N images can tell: two networks that differ by less
    of the baseline's accuracy a on the N images             may change places on another N images

and never less than one image. Both are taken at the mean accuracy of the baseline over the seeds that count.

Near 100 % both go to 0: at 99.99 % of 60,000 train images they are 0.004 points, two images. Networks end there on the
train split. Its margin is therefore no less than LEAST (0.1 points): the last fifth of 20 epochs moves the train
accuracy of an MLP on Fashion-MNIST by 0.2 to 1 points, and no reader calls 0.1 a difference. Where the baseline leaves
less room than the margin, an advantage is a ceiling.
"""

import math
from dataclasses import dataclass

from nclab.analysis.statistics import MOST_IMAGES

SHARE = 0.05
LEAST = {"train": 0.1}  # points, by split
RULE = (
    "5 % of the baseline's errors, or one binomial standard error of its accuracy where that is more; no less than 0.1 "
    "points on the train split"
)


@dataclass(frozen=True)
class Margin:
    """An amount in the unit of the claim, above 0, and where it comes from."""

    amount: float
    reason: str


def accuracy_margin(accuracy: float, images: int | None, split: str | None) -> Margin:
    """The margin for a baseline of this accuracy in percent on this many images (None: not known) of a split.

    >>> round(accuracy_margin(90.4, 10_000, "test").amount, 2), round(accuracy_margin(55.0, 360, "test").amount, 2)
    (0.48, 2.62)
    >>> accuracy_margin(99.99, 60_000, "train").amount
    0.1
    """
    errors = 100.0 - accuracy
    amounts = {f"{100 * SHARE:g} % of the baseline's errors ({errors:.3g} %)": SHARE * errors}
    if images:
        error = math.sqrt(accuracy * errors / images)
        amounts[f"the binomial standard error of {accuracy:.4g} % on {images:,} images"] = error
    amounts["one image" if images else f"one image of {MOST_IMAGES:,}"] = 100.0 / (images or MOST_IMAGES)
    unknown = "" if images else "; the number of images is not known"
    amounts = {reason + unknown: amount for reason, amount in amounts.items()}
    if split in LEAST:
        amounts[f"the least that is called a difference on the {split} split"] = LEAST[split]
    reason, amount = max(amounts.items(), key=lambda item: item[1])
    return Margin(amount, reason)
