"""Commands that repeat a judged setting: what a run recorded of its own command."""

from fake_runs import ADAPTIVE, claim, judged, last, write_run

from nclab.analysis.commands import commands
from nclab.analysis.report import make_report
from nclab.analysis.runs import load_runs
from nclab.config.record import Record


def told(folder, *own):
    return commands(claim(commands=own or ("make figure1",)), load_runs([folder])[0])


def test_dataset_and_epochs_are_those_of_the_run(tmp_path):
    folder = write_run(tmp_path, last(1), epochs=8)
    assert told(folder) == ["make figure1 DATASET=digits EPOCHS=8"]
    assert told(folder, "make figure1 DATASET=cifar10", "make figure2") == [
        "make figure1 DATASET=digits EPOCHS=8",
        "make figure2 DATASET=digits EPOCHS=8",
    ]
    one = claim(commands=("make figure1 DATASET=cifar10", "make figure2"))
    assert commands(one, None) == ["make figure1 DATASET=cifar10", "make figure2"]


def test_profile_and_further_words_are_those_that_the_run_recorded(tmp_path):
    plain = write_run(tmp_path, last(1), paper="simplex_etf/smoke/figure1,table1")
    assert told(plain) == ["make figure1 DATASET=digits EPOCHS=20 PROFILE=smoke"]
    assert told(plain, "make table1", "make other")[1] == "make other DATASET=digits EPOCHS=20 PROFILE=smoke"
    assert told(plain, "make depth PART=depth_rn") == ["make depth PART=depth_rn DATASET=digits EPOCHS=20"]
    words = ("optimizer.lr=0.02", "--policy", "etf.threshold=0.5")
    more = write_run(tmp_path, ADAPTIVE, paper=str(Record("simplex_etf", "cpu", ("figure2",), words)))
    assert told(more, "make figure2") == [
        "make figure2 DATASET=digits EPOCHS=20 PROFILE=cpu ARGS='optimizer.lr=0.02 --policy etf.threshold=0.5'"
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
    one = claim(commands=("make figure1",), per={"etf.k": [1, 2]})
    judgements = judged(tmp_path, one)
    (section,) = make_report(judgements, load_runs([tmp_path])).sections
    assert section.commands == [
        "make figure1 DATASET=digits EPOCHS=8",
        "make figure1 DATASET=digits EPOCHS=20",
        "make figure1",
    ]
