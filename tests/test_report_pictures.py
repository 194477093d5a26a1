"""Pictures of effects, and the figures and tables that a report finds in a folder."""

import base64
import io
import re

import pytest
from fake_reports import CAPTIONS, judgement, report_folder, write
from PIL import Image

from nclab.analysis.effects import MARKERS, decisive, draw_effects
from nclab.analysis.gallery import MOST_ROWS, find_pictures, find_tables
from nclab.analysis.judgement import Judgement
from nclab.analysis.runs import AnalysisError
from nclab.analysis.sections import SIGNS
from nclab.analysis.verdict import FAILS, HOLDS, KINDS, NOT_ENOUGH, VERDICTS


@pytest.fixture
def folder(tmp_path):
    return report_folder(tmp_path)


def test_verdicts_differ_in_shape_and_sign():
    assert set(MARKERS) == set(SIGNS) == set(VERDICTS)
    shapes = {(look["marker"], look.get("markerfacecolor")) for look in MARKERS.values()}
    assert len(shapes) == len(set(SIGNS.values())) == len(VERDICTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_every_kind(kind):
    many = [judgement(HOLDS, [0.1, 0.2, 0.3], kind), judgement(NOT_ENOUGH, [-9.0, 9.0], kind)]
    many += [judgement(FAILS, [-1.0], kind), judgement(NOT_ENOUGH, [1.0, 1.0], kind)]  # without an interval
    data = draw_effects(many[0].claim, many)
    assert data == draw_effects(many[0].claim, many)
    assert Image.open(io.BytesIO(data)).size[1] > 400
    assert decisive(many[0].claim, 0.5) == sorted(decisive(many[0].claim, 0.5))


def test_no_numbers_no_picture():
    one = judgement(HOLDS, [0.1, 0.2])
    assert draw_effects(one.claim, [Judgement(one.claim, {}, NOT_ENOUGH, "none")]) is None


def test_what_is_found(folder):
    (picture,) = find_pictures(folder / "figures", CAPTIONS)
    assert picture.caption == "Figure 1: an MLP."
    assert picture.numbers == "figure1_digits.csv"
    long, summary = find_tables(folder / "tables")
    assert (len(long.rows), long.rows[2]) == (MOST_ROWS, ["2", "0.333333"])
    assert (summary.header, summary.rows, summary.note) == (["policy", "acc"], [["a | b", "<1>"]], "")


def test_the_longest_start_of_a_name_says_the_caption(folder):
    add_picture(folder, "depth_rn_mnist", "depth_rn_blocks_mnist", "own_picture", "table")
    captions = {"depth_rn": "Against depth.", "depth_rn_blocks": "Along the depth.", "table": ""}
    found = {picture.path.stem: picture.caption for picture in find_pictures(folder / "figures", captions)}
    assert found == {
        "depth_rn_mnist": "Against depth.",
        "depth_rn_blocks_mnist": "Along the depth.",
        "figure1_digits": "figure1 digits",
        "own_picture": "own picture",
        "table": "table",
    }


def add_picture(folder, *names):
    for name in names:
        (folder / "figures" / f"{name}.png").write_bytes((folder / "figures" / "figure1_digits.png").read_bytes())


@pytest.mark.parametrize(("dots", "width"), [(200, 600), (100, 1200), (None, 1000)])
def test_a_picture_is_as_wide_as_in_print(tmp_path, dots, width):
    Image.new("RGB", (1000, 10)).save(tmp_path / "a.png", **({"dpi": (dots, dots)} if dots else {}))
    (picture,) = find_pictures(tmp_path)
    assert picture.width == width
    assert picture.least == 0.75 * width


def test_an_animation_is_a_picture(folder):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "figures" / "figure1_moves.gif", save_all=True, append_images=frames[1:], duration=100)
    html, text = write(folder)
    data = re.search(r'src="data:image/gif;base64,([^"]+)"', html)[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).n_frames == 2
    assert "(figures/figure1_moves.gif)" in text
    assert (folder / "report" / "figures" / "figure1_moves.gif").is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gif", b"\x89PNG", r"a\.gif: not a GIF picture \(4 bytes\)"),
        ("a.png", b"", r"a\.png: not a PNG picture \(0 bytes\)"),
        ("a.png", b"GIF89a", r"not a PNG picture \(6 bytes\)"),
        ("a.md", b"text", r"a\.md: no Markdown table in it"),
        ("a.md", b"| a | b |\n|---|---|\n| 1 |\n", "expected rows of 2 cells, got 1: 1"),
        ("a.csv", b"", r"a\.csv: empty"),
        ("a.csv", b"a,b\n1,2,3\n", "expected rows of 2 cells, got 3"),
        ("a.csv", b"\xff\xfe", "can't decode"),
    ],
)
def test_a_broken_figure_or_table_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AnalysisError, match=message) as error:
        find_pictures(tmp_path), find_tables(tmp_path)
    assert "\n" not in str(error.value)
