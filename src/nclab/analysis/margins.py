"""How large a difference of two accuracies must be to matter, where a claim does not say it.

No fixed number of points does: 0.5 points are a third of the errors that a good network makes on MNIST, and at 55 % on
360 images less than two images. The margin of a setting is therefore the larger of

    SHARE (5 %) of the baseline's errors                     what matters: one error in twenty, at any accuracy
    sqrt(a (1 - a) / N), the binomial standard error         what N images can tell: two networks that differ by less
    of the baseline's accuracy a on the N images             may change places on another N images

and never less than one image. Both are taken at the mean accuracy of the baseline over the seeds that count.
"""

import math
from dataclasses import dataclass

from nclab.analysis.statistics import MOST_IMAGES

SHARE = 0.05
RULE = "5 % of the baseline's errors, or one binomial standard error of its accuracy where that is more"


@dataclass(frozen=True)
class Margin:
    """An amount in the unit of the claim, above 0, and where it comes from."""

    amount: float
    reason: str


def accuracy_margin(accuracy: float, images: int | None) -> Margin:
    """The margin for a baseline of this accuracy in percent on this many images (None: not known).

    >>> round(accuracy_margin(90.4, 10_000).amount, 2), round(accuracy_margin(55.0, 360).amount, 2)
    (0.48, 2.62)
    """
    errors = 100.0 - accuracy
    amounts = {f"{100 * SHARE:g} % of the baseline's errors ({errors:.3g} %)": SHARE * errors}
    if images:
        error = math.sqrt(accuracy * errors / images)
        amounts[f"the binomial standard error of {accuracy:.4g} % on {images:,} images"] = error
    amounts["one image" if images else f"one image of {MOST_IMAGES:,}"] = 100.0 / (images or MOST_IMAGES)
    reason, amount = max(amounts.items(), key=lambda item: item[1])
    return Margin(amount, reason + ("" if images else "; the number of images is not known"))
