"""From run folders to tables and figures; needs pandas and matplotlib, never torch."""

from nclab.analysis.block_figures import depth_blocks, ends
from nclab.analysis.curves import brief, curves, fixed_since, switches
from nclab.analysis.depth_figures import depth, slopes
from nclab.analysis.drawing import save_figure, style
from nclab.analysis.figures import figure1, figure2
from nclab.analysis.labels import policy_label
from nclab.analysis.paper_tables import table1, table2, variants
from nclab.analysis.runs import AnalysisError, Run, choose, differences, load_runs
from nclab.analysis.tables import readable, save_table, summary_table, text_table
from nclab.analysis.vit_figures import figure3, figure4

__all__ = [
    "AnalysisError",
    "Run",
    "brief",
    "choose",
    "curves",
    "depth",
    "depth_blocks",
    "differences",
    "ends",
    "figure1",
    "figure2",
    "figure3",
    "figure4",
    "fixed_since",
    "load_runs",
    "policy_label",
    "readable",
    "save_figure",
    "save_table",
    "slopes",
    "style",
    "summary_table",
    "switches",
    "table1",
    "table2",
    "text_table",
    "variants",
]
