"""`nclab-runs diff` and `show`: two runs side by side, and the curves of one in the terminal."""

import math
import shlex
import struct

import pandas as pd
import pytest
from fake_runs import last, write_run
from run_states import said

from nclab.analysis.cli import main as draw
from nclab.runs.diff import _number
from nclab.runs.show import BARS, WIDTH, curve


@pytest.fixture
def two(tmp_path):
    write_run(tmp_path, seed=0, epochs=4)
    write_run(tmp_path, last(2), 1, epochs=3)
    return sorted(path.parent for path in tmp_path.glob("*/*/metrics.csv"))


def test_diff_names_the_keys_and_numbers_that_differ(two, capsys):
    code, out, err = said(capsys, "diff", *two)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["seed", "1", "0"] in lines or ["seed", "0", "1"] in lines
    assert any(line[:1] == ["etf.k"] and "-" in line for line in lines)
    assert not any(line[:1] == ["dataset.name"] for line in lines)  # equal in both
    a, b = (pd.read_csv(folder / "metrics.csv").query("split == 'test' and layer == 'network'") for folder in two)
    name = a["metric"].iloc[0]
    first, second = (frame[frame["metric"] == name]["value"].iloc[-1] for frame in (a, b))
    assert ["test", "network", name, f"{first:.4g}", f"{second:.4g}", f"{second - first:+.4g}"] in lines
    assert _number(5818.0) == "5818"
    assert (_number(math.nan), _number(math.nan, "+"), _number(None)) == ("nan", "", "-")
    assert not any(line[1:2] == ["fc1"] for line in lines)
    assert any(line[1:2] == ["fc1"] for line in map(str.split, said(capsys, "diff", *two, "--all")[1].splitlines()))


def test_diff_of_a_run_with_itself_says_that_all_is_equal(two, capsys):
    code, out, _ = said(capsys, "diff", two[0], two[0])
    assert code == 0
    assert "the configurations are equal" in out
    assert {line.split()[-1] for line in out.splitlines() if line.startswith(("train", "test"))} == {"+0"}


def test_show_draws_the_curves_of_the_run(two, capsys):
    code, out, err = said(capsys, "show", two[0], "--metric", "nc1,accuracy", "--split", "train")
    assert (code, err) == (0, "")
    frame = pd.read_csv(two[0] / "metrics.csv").query("split == 'train' and metric == 'nc1' and layer == 'fc2'")
    (line,) = [line.split() for line in out.splitlines() if line.split()[:3] == ["nc1", "train", "fc2"]]
    assert line[3] == f"{frame['value'].iloc[0]:.4g}"
    assert line[5] == f"{frame['value'].iloc[-1]:.4g}"
    assert line[4] == curve(frame["value"].tolist())[0]
    assert " test " not in out
    assert f"nclab-draw curves {two[0]} --metric nc1,accuracy" in out


@pytest.mark.parametrize("split", [(), ("--split", "test")])
def test_the_picture_that_show_names_can_be_drawn(tmp_path, capsys, split):
    """As it is printed, also where a shell would take the folder's name apart."""
    write_run(tmp_path / "my runs; $HOME")
    (folder,) = (path.parent for path in tmp_path.glob("*/*/*/metrics.csv"))
    code, out, _ = said(capsys, "show", folder, *split)
    assert code == 0
    words = shlex.split(out.partition("as a picture: ")[2])
    assert words[:3] == ["nclab-draw", "curves", str(folder)]
    assert tuple(words[5:]) == split
    draw([*words[1:], "--out", str(tmp_path / "picture")])
    assert (tmp_path / "picture.png").is_file()


@pytest.mark.parametrize("rows", ["some", "none"])
def test_show_names_no_picture_that_cannot_be_drawn(tmp_path, capsys, rows):
    """Of a run that is not finished, or that has measured nothing yet."""
    write_run(tmp_path, done=rows == "none")
    (file,) = tmp_path.glob("*/*/metrics.csv")
    if rows == "none":
        file.write_text(file.read_text().partition("\n")[0] + "\n")
    code, out, err = said(capsys, "show", file.parent)
    assert (code, err) == (0, "")
    assert "nclab-draw" not in out
    assert out == out.rstrip() + "\n"


@pytest.mark.parametrize("done", [True, False])
def test_show_draws_a_picture(tmp_path, capsys, done):
    """Of a run that trains, too: nclab-draw refuses that."""
    write_run(tmp_path, done=done)
    (folder,) = (path.parent for path in tmp_path.glob("*/*/metrics.csv"))
    file = tmp_path / "new" / "curves.png"
    code, out, err = said(capsys, "show", folder, "--metric", "nc1,ncc_accuracy", "--png", file)
    assert (code, err) == (0, "")
    assert out == f"{file}: nc1, ncc_accuracy of split train\n"
    width, height = struct.unpack(">II", file.read_bytes()[16:24])
    assert file.read_bytes().startswith(b"\x89PNG")
    assert width > 600
    assert height > 400
    assert [path.name for path in file.parent.iterdir()] == ["curves.png"]


def test_a_curve_keeps_its_ends_and_has_gaps_where_numbers_are_missing():
    rising, scale = curve(list(range(1000)))
    assert (len(rising), rising[0], rising[-1], scale) == (WIDTH, BARS[0], BARS[-1], "")
    assert list(rising) == sorted(rising)
    assert curve([3.0, 3.0]) == (BARS[0] * 2, "")
    assert curve([math.nan, math.inf]) == ("  ", "")
    assert curve([10.0**-i for i in range(8)])[0] == BARS[::-1]
    assert curve([-1.0, 100.0])[1] == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "RUN", "--metric", "nc9"], "has no metric 'nc9'; valid: "),
        (["show", "RUN", "--split", "valid"], "has no split 'valid'; valid: train, test"),
        (["show", "ROOT"], "expected one run folder, got "),
        (["show", "RUN", "--metric", "nc9", "--png", "x.png"], "has no metric 'nc9'; valid: "),
        (["show", "RUN", "--png", "curves.pdf"], "--png: expected a file that ends in .png, got curves.pdf"),
        (["diff", "RUN", "EMPTY"], "EMPTY"),
    ],
)
def test_wrong_input_ends_in_one_line(two, tmp_path, capsys, words, expected):
    (tmp_path / "EMPTY").mkdir()
    places = {"RUN": two[0], "ROOT": two[0].parent, "EMPTY": tmp_path / "EMPTY"}
    code, out, err = said(capsys, *(places.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
