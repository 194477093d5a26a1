"""The page of `nclab-runs board` in a real browser, as wide as a desk and as a phone: it fits, it filters, it draws."""

import pytest
from browser import BROWSER, driven
from fake_runs import ADAPTIVE, diverge, last, write_run
from run_states import failed_run, said
from test_board import with_plane

from nclab.runs.board.page import Board
from nclab.runs.find import find_runs

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="needs chromium"),
    pytest.mark.usefixtures("without_slurm"),
]
EVIL = '"<img src=x onerror=alert(1)>'

# What a reader does, and what is there then. `drawn` counts the curves of the left picture that plotly has on the page.
SCRIPT = """
const $ = (id) => page.document.getElementById(id);
const rows = () => $("body").rows.length;
const over = () => [...$("over").querySelectorAll(".scatterlayer .trace")].length;
const y = (id) => JSON.stringify($(id).data.map((trace) => trace.y));
const set = (id, value, kind) => { $(id).value = value; $(id).dispatchEvent(new page.Event(kind)); };
const wide = () => page.document.scrollingElement.scrollWidth;
const found = {};
await until(() => page.document.body.dataset.drawn && over());
found.width = [page.innerWidth, wide()];
found.rows = [rows(), $("found").textContent];
const column = (name) => [...$("head").cells].findIndex((cell) => cell.textContent === name);
found.states = [...new Set([...$("body").rows].map((row) => row.cells[column("state")].textContent))];
found.buttons = [...$("over").querySelectorAll(".modebar-btn")].map((button) => button.dataset.title);
found.saved = (await page.Plotly.toImage($("over"))).slice(0, 22);

set("text", "seed3x", "input");
found.none = rows();
set("text", "adaptive", "input");
found.words = [rows(), $("found").textContent];
set("text", "", "input");
const policy = $("filters").elements.namedItem("policy");
policy.value = "last 2 ETF";
policy.dispatchEvent(new page.Event("change"));
found.policy = [rows(), [...$("body").rows].every((row) => row.textContent.includes("last 2 ETF"))];
$("reset").click();
found.all = rows();
[...$("head").querySelectorAll("button")].find((button) => button.textContent === "test accuracy").click();
const accuracies = [...$("body").rows].map((row) => row.cells[column("test accuracy")].textContent);
const numbers = accuracies.filter(Boolean).map(Number);
found.sorted = numbers.length > 5 && numbers.every((number, i) => !i || numbers[i - 1] >= number);

$("clear").click();
await until(() => $("pictures").hidden);
found.cleared = $("note").textContent;
const box = (name) => [...$("body").rows].find((row) => row.textContent.includes(name)).querySelector("input");
box("ADAPTIVE").click();
await until(() => page.document.body.dataset.drawn === "1" && over() > 5);
found.one = over(); // ncc_accuracy of six layers, two splits
found.fixed = $("over").layout.annotations.map(({ text }) => text);
set("metric", "ncc_accuracy", "change");
await until(() => $("over_title").textContent.startsWith("NCC accuracy"));
const last = y("depth");
const symbols = () => $("depth").data.flatMap((trace) => trace.marker.symbol);
const squares = () => symbols().filter((symbol) => symbol === "square-open").length;
found.squares = [squares()];
set("slider", "1", "input");
found.slider = [$("epoch").textContent, $("depth_title").textContent.includes("after epoch 1 "), y("depth") !== last];
found.squares.push(squares());

box("PLANE").click();
await until(() => page.document.body.dataset.drawn === "2");
set("layer", "last features", "change");
set("split", "train", "change");
await until(() => over() === 2);
const traces = $("over").data;
found.overlay = [over(), new Set(traces.map(({ line }) => line.color)).size, traces.map(({ name }) => name)];
found.plane = [$("plane").hidden, $("no_plane").hidden, $("plane").querySelectorAll(".scatterlayer .trace").length];
found.wide = wide();
found.evil = [page.document.images.length, $("body").textContent.includes('"<img src=x onerror=alert(1)>')];

for (let i = 0; i < 6; i++) $("body").querySelector("input:enabled:not(:checked)").click(); // the sixth is one too many
found.most = [$("found").textContent.split("; ")[1], $("note").textContent];
await until(() => page.document.body.dataset.drawn === "7");
await new Promise((then) => { frame.onload = then; page.location.reload(); });
await until(() => page.document.readyState === "complete" && page.document.body?.dataset.drawn === "7");
found.kept = $("found").textContent.split("; ")[1];
return found;
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """30 runs: done, failed, diverged, killed; one fixes layers while it trains, one has planes, one attacks."""
    root = tmp_path_factory.mktemp("board") / "outputs"
    for seed in range(5):
        for etf in ({"name": "none"}, last(1), last(2), last(3)):
            write_run(root, etf, seed, epochs=6)
    for seed in range(5):
        write_run(root, last(1), seed, epochs=6, experiment="other", dataset={"name": "mnist"}, done=seed > 1)
    write_run(root, ADAPTIVE, 0, epochs=6, fix=[(2, "fc5"), (4, "fc4")]).rename(root / "exp" / "ADAPTIVE")
    with_plane(root / "plane").rename(root / "plane" / "exp" / "PLANE")
    (root / "plane" / "exp").rename(root / "third")
    (root / "plane").rmdir()
    diverge(root, seed=9, epochs=6)
    diverge(root, seed=10, epochs=6)
    failed_run(root, name=EVIL)
    page = root.parent / "board.html"
    return root, page


@pytest.mark.parametrize("width", [1400, 390])
def test_a_reader_filters_draws_and_moves_the_slider(board, width, tmp_path, capsys):
    root, page = board
    assert said(capsys, "board", root, "--out", page)[0] == 0
    found, console = driven(page, width, SCRIPT, tmp_path)
    assert console == []
    assert found["width"] == [width, width]
    assert found["wide"] == width
    assert found["rows"] == [30, "30 of 30 runs; 2 drawn"]
    assert {"✔ done", "✘ failed", "■ interrupted"} <= set(found["states"])
    assert found["buttons"] == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]
    assert found["saved"] == "data:image/png;base64,"
    assert found["none"] == 0
    assert found["words"] == [1, "1 of 30 runs; 2 drawn"]
    assert found["policy"] == [5, True]
    assert found["all"] == 30
    assert found["sorted"]
    assert found["cleared"] == "Tick a run in the table to draw it."
    assert found["one"] == 12  # six layers, two splits
    assert found["fixed"] == ["fc5 fixed", "fc4 fixed"]
    assert found["squares"] == [4, 0]  # two layers on two splits at the end, none after epoch 1
    assert found["slider"] == ["1", True, True]
    assert found["overlay"][:2] == [2, 2]
    assert len(set(found["overlay"][2])) == 2
    assert found["plane"] == [False, True, 10]
    assert found["evil"] == [0, True]
    assert found["most"] == ["7 drawn", "At most 7 runs are drawn at once: each has a colour of its own."]
    assert found["kept"] == "7 drawn"


WATCHED = """
const $ = (id) => page.document.getElementById(id);
await until(() => page.document.body?.dataset.drawn === "2");
page.mine = 1;
$("clear").click();
$("body").querySelector("input:enabled").click();
await until(() => page.document.body.dataset.drawn === "1");
await until(() => !page.mine && page.document.body?.dataset.drawn === "1");
$("again").click();
page.mine = 2;
await new Promise((then) => setTimeout(then, 3000));
return [page.mine, $("live").textContent.trim()];
"""


def test_a_page_of_watch_loads_itself_again_and_keeps_what_was_chosen(tmp_path):
    """Until one unticks it. The clock of the browser is not ours: it runs ahead where nothing is left to do."""
    root, out = tmp_path / "outputs", tmp_path / "board.html"
    for etf in ({"name": "none"}, last(1)):
        write_run(root, etf, epochs=2)
    Board("outputs", out).write(find_runs([root]), reload=1.0)
    found, console = driven(out, 390, WATCHED, tmp_path)
    assert console == []
    assert found == [2, "load again every 1 s"]


def test_what_the_console_says_is_heard(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><script>nothing.of.this()</script>")
    found, console = driven(page, 390, "return page.innerWidth;", tmp_path)
    assert found == 390
    assert len(console) == 1
    assert "nothing is not defined" in console[0]
