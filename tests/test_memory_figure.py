"""nclab-draw memory: bars of what is kept in memory, the peak and the time of a step."""

import json

import numpy as np
import pytest
from fake_runs import BASELINE, edit, last, write_run

from nclab.analysis import AnalysisError, load_runs
from nclab.analysis.cli import main
from nclab.analysis.memory_figure import MIB, memory

KEPT = {"weights_learnable_bytes": 4 * MIB, "weights_fixed_bytes": 0, "gradients_bytes": 4 * MIB}
KEPT |= {"optimizer_bytes": 4 * MIB, "peak_bytes": 100 * MIB, "peak_of": "resident set of the process"}


@pytest.fixture
def root(tmp_path):
    for seed in range(3):
        edit(write_run(tmp_path, BASELINE, seed), memory=KEPT, step_seconds=(0.002, 0.003, 0.009)[seed])
        fixed = {"weights_learnable_bytes": 3 * MIB, "weights_fixed_bytes": MIB, "gradients_bytes": 3 * MIB}
        edit(write_run(tmp_path, last(2), seed), memory=KEPT | fixed, step_seconds=0.001)
    return tmp_path


def test_bars_stack_the_parts_and_the_peak_and_the_step_stand_beside(root):
    figure, table = memory(load_runs([root]))
    bars, peak, time = figure.axes
    assert [label.get_text() for label in bars.get_yticklabels()] == ["baseline", "last 2 ETF"]
    second = [(bar.get_x(), bar.get_width()) for bar in bars.patches if round(bar.get_y() + bar.get_height() / 2) == -1]
    assert second == [(0, 3), (3, 1), (4, 3), (7, 4)]  # learnable and fixed weights, gradients, optimizer, in MiB
    hatches = [bar.get_hatch() for bar in bars.patches]
    assert len({(bar.get_facecolor(), hatch) for bar, hatch in zip(bars.patches, hatches, strict=True)}) == 4
    marks = [axes.containers[0].lines[0].get_xdata(orig=False) for axes in (peak, time)]
    np.testing.assert_allclose(marks, [[100, 100], [2, 1]])  # MiB, milliseconds: the fastest of 2, 3, 9
    assert time.get_xlim()[1] >= 3  # the line ends at the median
    assert list(table.step_seconds_median) == [0.003, 0.001]
    assert [axes.get_xlabel() for axes in figure.axes] == ["MiB, by what takes it", "peak (MiB)", "a step (ms)"]
    ends = "at the end of training; peak: resident set of the process; step: the fastest seed, line to the median one"
    assert f"mean ± std of 3 seeds\n{ends}" in figure.get_suptitle()
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert not any(axes.get_window_extent().overlaps(legend) for axes in figure.axes)


@pytest.mark.parametrize("lacking", ["memory", "step_seconds"])
def test_runs_from_before_are_refused_with_the_cure(root, lacking, capsys):
    folder = load_runs([root])[0].path
    summary = json.loads((folder / "summary.json").read_text())
    del summary[lacking]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(AnalysisError, match=r"summary\.json: no (memory\.\w+|step_seconds): .*overwrite=true$"):
        memory(load_runs([root]))
    with pytest.raises(SystemExit) as end:
        main(["memory", str(root), "--out", str(root / "f")])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_tells_mib_and_milliseconds(root, capsys):
    main(["memory", str(root), "--out", str(root / "f")])
    header, baseline, fixed, *_ = capsys.readouterr().out.splitlines()
    assert "learnable weights MiB  fixed weights MiB  gradients MiB" in header
    assert baseline.split() == ["baseline", "3", "4", "0", "4", "4", "100", "2"]
    assert fixed.split()[-7:] == ["3", "3", "1", "3", "4", "100", "1"]
