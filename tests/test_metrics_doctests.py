"""The examples in the docstrings of nclab.metrics say what happens."""

import doctest
import importlib
import pkgutil

import pytest

import nclab.metrics

EXAMPLES = {"at_hand": 1, "meter": 1, "model": 1}  # docstrings with an example: measure, CollapseMeter, measure_model


@pytest.mark.parametrize("name", sorted(m.name for m in pkgutil.iter_modules(nclab.metrics.__path__)))
def test_examples(name):
    module = importlib.import_module(f"nclab.metrics.{name}")
    shown = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert len(shown) >= EXAMPLES.get(name, 0)
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried == sum(len(test.examples) for test in shown)
