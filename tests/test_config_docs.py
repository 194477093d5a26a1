"""Help, docs/configuration.md and the comments of conf/ say what the settings dataclasses say."""

from dataclasses import dataclass, field

import pytest
from omegaconf import OmegaConf

from nclab.config import docs, shown
from nclab.config.document import Key, comments, groups, keys, root_keys
from nclab.config.listed import head
from nclab.config.options import defaults

UP_TO_DATE = "is not up to date: make docs-config"


def test_the_page_of_the_configuration_is_up_to_date():
    assert docs.FILE.read_text() == docs.configuration(), UP_TO_DATE


@pytest.mark.parametrize("file", docs.commented_files(), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_comments_of_conf_are_up_to_date(file):
    text = docs.commented_files()[file]
    assert file.read_text() == text, UP_TO_DATE
    assert OmegaConf.create(text) == OmegaConf.load(file)


def test_what_help_shows_without_torch_is_up_to_date():
    assert shown.FILE.read_text(encoding="utf-8") == docs.stored(), UP_TO_DATE


def test_every_key_of_ours_is_documented():
    undocumented = [key.name for key in root_keys() if not key.text]
    for group, said, options in groups():
        undocumented += [] if said else [group]
        undocumented += [f"{group}={option.name}" for option in options if not option.summary]
        undocumented += [
            f"{group}.{key.name} of {option.name}" for option in options for key in option.keys if not key.text
        ]
    assert undocumented == []


@dataclass
class Base:
    name: str
    first: int = 1  # as it was
    plain: bool = False


@dataclass
class Derived(Base):
    first: int = 2  # what it is: a # b
    # above it,
    # in two lines
    listed: list[float | None] = field(default_factory=lambda: [0.5, None])  # and behind
    needed: str = field(kw_only=True)


def test_comments_of_fields_are_read():
    assert comments(Derived) == {"first": "what it is: a # b", "listed": "above it, in two lines and behind"}
    assert comments(Base) == {"first": "as it was"}


def test_keys_have_type_default_and_text():
    assert keys(Derived) == [
        Key("first", "int", "2", "what it is: a # b"),
        Key("plain", "bool", "false", ""),
        Key("listed", "list[float | null]", "[0.5, null]", "above it, in two lines and behind"),
        Key("needed", "str", "required", ""),
    ]
    assert defaults("x", Derived) == {"name": "x", "first": 2, "plain": False, "listed": [0.5, None], "needed": "???"}


def test_a_comment_takes_the_place_of_a_former_one():
    text = "# Head: stays.\nname: x  # stays\na: 1 # old\n     # of two lines\nbb: [1, 2]\nm:\n  a: 3\nc: # no value\n"
    said = {"a": "new", "bb": "word " * 30, "m.a": "inner", "c": "none"}
    assert docs.commented(text, said).splitlines() == [
        "# Head: stays.",
        "name: x  # stays",
        "a: 1        # new",
        "bb: [1, 2]  # " + ("word " * 21).strip(),
        "            # " + ("word " * 9).strip(),
        "m:",
        "  a: 3      # inner",
        "c:          # none",
    ]


def test_the_head_of_a_file_is_its_description(tmp_path):
    (tmp_path / "x.yaml").write_text("# @package _global_\n# One\n# sentence.\n#   a command\nname: x\n# later\n")
    assert head(tmp_path / "x.yaml") == "One sentence."


def test_help_lists_options_of_groups_and_keys():
    text = docs.help_text()
    for line in ("\n  etf  ", "\n    last_k  ", "\n  experiment  ", "\n    simplex_etf/figure1", "\n  metrics.every  "):
        assert line in text, line
    assert "$$NCLAB_DATA" in text
    assert max(map(len, text.splitlines())) <= docs.WIDTH
