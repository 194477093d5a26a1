"""Commands that repeat a judged setting: what a run recorded of its own command."""

from fake_runs import ADAPTIVE, claim, judged, last, write_run

from nclab.analysis.commands import commands
from nclab.analysis.report import make_report
from nclab.analysis.runs import load_runs
from nclab.config.record import Record

RUN = "nclab-paper run simplex_etf --part"
FIGURE1 = f"{RUN} figure1"


def told(folder, *own):
    return commands(claim(commands=own or (FIGURE1,)), load_runs([folder])[0])


def test_dataset_and_epochs_are_those_of_the_run(tmp_path):
    folder = write_run(tmp_path, last(1), epochs=8)
    assert told(folder) == [f"{RUN} figure1 --dataset digits --epochs 8"]
    assert told(folder, f"{RUN} figure1 --dataset cifar10", f"{RUN} figure2") == [
        f"{RUN} figure1 --dataset digits --epochs 8",
        f"{RUN} figure2 --dataset digits --epochs 8",
    ]
    one = claim(commands=(f"{RUN} figure1 --dataset cifar10", f"{RUN} figure2"))
    assert commands(one, None) == [f"{RUN} figure1 --dataset cifar10", f"{RUN} figure2"]


def test_profile_and_further_words_are_those_that_the_run_recorded(tmp_path):
    plain = write_run(tmp_path, last(1), paper="simplex_etf/smoke/figure1,table1")
    assert told(plain) == [f"{RUN} figure1 --dataset digits --epochs 20 --profile smoke"]
    assert (
        told(plain, f"{RUN} table1", f"{RUN} other")[1] == f"{RUN} other --dataset digits --epochs 20 --profile smoke"
    )
    assert told(plain, "nclab-paper run depth --part depth_rn") == [
        "nclab-paper run depth --part depth_rn --dataset digits --epochs 20"
    ]
    words = ("optimizer.lr=0.02", "--policy", "etf.threshold=0.5")
    more = write_run(tmp_path, ADAPTIVE, paper=str(Record("simplex_etf", "cpu", ("figure2",), words)))
    assert told(more, f"{RUN} figure2") == [
        f"{RUN} figure2 --dataset digits --epochs 20 --profile cpu optimizer.lr=0.02 --policy etf.threshold=0.5"
    ]


def test_a_record_is_read_as_it_was_written_and_nonsense_is_none():
    record = Record("a", "b", ("c", "d"), ("x=[1, 2]", "y='z'"))
    assert Record.read(str(record)) == record
    for text in (None, 3, "", "a", "a/b", "a/b/", "/b/c", "a/b/c/d", "a/b/c 'open"):
        assert Record.read(text) is None, text


def test_the_report_shows_the_commands_of_every_setting_once(tmp_path):
    for epochs in (8, 20):
        for seed in (0, 1):
            write_run(tmp_path, last(1), seed, epochs=epochs)
    one = claim(commands=(FIGURE1,), per={"etf.k": [1, 2]})
    judgements = judged(tmp_path, one)
    (section,) = make_report(judgements, load_runs([tmp_path])).absent
    assert section.commands == [
        f"{RUN} figure1 --dataset digits --epochs 8",
        f"{RUN} figure1 --dataset digits --epochs 20",
        f"{RUN} figure1",
    ]
