"""Margins of accuracies: from errors, from the number of images, from one image."""

import math

import pytest

from nclab.analysis.margins import LEAST, RULE, SHARE, accuracy_margin


@pytest.mark.parametrize(
    ("accuracy", "images", "amount", "reason"),
    [
        (90.4, 10_000, 0.48, "5 % of the baseline's errors (9.6 %)"),  # Fashion-MNIST
        (98.5, 10_000, 100 * math.sqrt(0.985 * 0.015 / 10_000), "standard error of 98.5 % on 10,000 images"),  # MNIST
        (55.0, 360, 100 * math.sqrt(0.55 * 0.45 / 360), "standard error of 55 % on 360 images"),  # digits
        (100.0, 360, 100 / 360, "one image"),
        (99.76, 60_000, 100 * math.sqrt(0.9976 * 0.0024 / 60_000), "standard error of 99.76 % on 60,000 images"),
        (90.0, None, 0.5, "5 % of the baseline's errors (10 %); the number of images is not known"),
        (100.0, None, 1e-4, "one image of 1,000,000; the number of images is not known"),
    ],
)
def test_the_margin_is_the_largest_of_three(accuracy, images, amount, reason):
    margin = accuracy_margin(accuracy, images, "test")
    assert margin.amount == pytest.approx(amount)
    assert reason in margin.reason


@pytest.mark.parametrize(
    ("accuracy", "images", "amount", "reason"),
    [
        (99.99, 60_000, 0.1, "the least that is called a difference on the train split"),
        (99.99, None, 0.1, "the least that is called a difference on the train split"),
        (97.0, 60_000, 0.15, "5 % of the baseline's errors (3 %)"),
        (99.0, 360, 100 * math.sqrt(0.99 * 0.01 / 360), "standard error of 99 % on 360 images"),
    ],
)
def test_of_the_train_split_it_is_a_tenth_of_a_point_or_more(accuracy, images, amount, reason):
    margin = accuracy_margin(accuracy, images, "train")
    assert margin.amount == pytest.approx(amount)
    assert reason in margin.reason


def test_the_rule_in_words_says_the_share():
    assert f"{100 * SHARE:g} %" in RULE
    assert LEAST == {"train": 0.1}
    assert "no less than 0.1 points on the train split" in RULE
