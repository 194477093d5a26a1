"""The modules that register drawings and statistics: a failed import is tried again."""

import importlib

import pytest

from nclab.analysis import found
from nclab.analysis.runs import AnalysisError
from nclab.interfaces.plugins import PluginError


@pytest.fixture
def afresh(monkeypatch):
    """As in a process that has not looked yet; the flag of this one is put back."""
    monkeypatch.setitem(found._loaded, "all", False)


def failing(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize("error", [ImportError("a wing"), SyntaxError("a wing"), KeyboardInterrupt()], ids=repr)
def test_a_wing_that_cannot_be_imported_is_tried_again(monkeypatch, afresh, error):
    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", failing(error))
        for _ in range(2):  # the second time it must not seem to be loaded
            with pytest.raises(type(error)):
                found.load_registered()
    found.load_registered()
    assert found._loaded["all"]


def test_a_plug_in_that_cannot_be_imported_is_one_line_and_tried_again(monkeypatch, afresh):
    monkeypatch.setattr(found, "load_plugins", failing(PluginError("plug-in 'x' cannot be imported")))
    for _ in range(2):
        with pytest.raises(AnalysisError, match="plug-in 'x' cannot be imported"):
            found.load_registered()


def test_what_was_found_is_not_imported_again(monkeypatch):
    found.load_registered()
    monkeypatch.setattr(importlib, "import_module", failing(AssertionError("imported again")))
    found.load_registered()
    assert found._loaded["all"]
