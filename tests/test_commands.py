"""Commands that repeat a judged setting, checked against the plan that they run."""

from pathlib import Path

import pytest
import yaml
from fake_runs import FFN, claim, judged, last, vit, write_run

from nclab.analysis.commands import PlanSizes, commands, load_plan
from nclab.analysis.ledger import load_ledger
from nclab.analysis.report import make_report
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.config.plan import Plan
from nclab.config.schema import to_yaml

ROOT = Path(__file__).parents[1]
LEDGER = ROOT / "conf" / "claims.yaml"
PLAN = ROOT / "conf" / "plan" / "paper.yaml"


def sizes(profiles, **parts):
    """A plan with these profiles, whose keys have one value or a list of them."""
    several = {
        profile: {
            name: {key: value if isinstance(value, list) else [value] for key, value in keys.items()}
            for name, keys in size.items()
        }
        for profile, size in profiles.items()
    }
    return PlanSizes(several, parts)


def told(folder, profiles=None, parts=None, command="make figure1", **more):
    plan = sizes(profiles or {}, **(parts or {}))
    return commands(claim(commands=(command,), **more), load_runs([folder])[0], plan)


def test_dataset_and_epochs_are_those_of_the_run(tmp_path):
    folder = write_run(tmp_path, last(1), epochs=8)
    assert told(folder) == ["make figure1 DATASET=digits EPOCHS=8"]
    one = claim(commands=("make figure1 DATASET=cifar10", "make figure2"))
    assert commands(one, None, PlanSizes()) == ["make figure1 DATASET=cifar10", "make figure2"]
    run = load_runs([folder])[0]
    assert commands(one, run, PlanSizes()) == [
        "make figure1 DATASET=digits EPOCHS=8",
        "make figure2 DATASET=digits EPOCHS=8",
    ]


def test_the_profile_is_the_one_that_sets_most_of_what_the_run_has(tmp_path):
    profiles = {
        "small": {"mlp": {"epochs": 3, "model.width": 128, "schedule.name": "cosine", "metrics.every": 2}},
        "long": {"mlp": {"epochs": 400, "metrics.every": 4}, "vit": {"epochs": 400}},
    }
    cosine = {"schedule": {"name": "cosine"}}
    small = write_run(tmp_path, last(1), model={"name": "mlp", "depth": 5, "width": 128}, every=2, **cosine)
    assert told(small, profiles) == ["make figure1 DATASET=digits EPOCHS=20 PROFILE=small"]
    wide = write_run(tmp_path, last(1), every=2, **cosine)
    assert told(wide, profiles) == ["make figure1 DATASET=digits EPOCHS=20 PROFILE=long"]
    assert told(wide, profiles, statistic="early_ncc") == ["make figure1 DATASET=digits EPOCHS=20"]
    assert told(write_run(tmp_path, FFN, model=vit(1)), profiles)[0].endswith(" PROFILE=long")


def test_the_part_that_a_command_names_says_which_size_its_runs_have(tmp_path):
    profiles = {"cpu": {"text": {"model.width": 8}, "mlp": {"model.depth": 5}}, "paper": {"mlp": {"model.depth": 99}}}
    parts = {"depth_text": "text"}
    folder = write_run(tmp_path, last(1), model={"name": "mlp", "depth": 5, "width": 8})
    for command in ("make depth ARGS=depth_text", 'make depth ARGS="depth_text x=1"', "make depth_text"):
        assert told(folder, profiles, parts, command) == [f"{command} DATASET=digits EPOCHS=20 PROFILE=cpu"]
    # What no profile has is still made by a profile that knows the part: another one would refuse it.
    profiles["cpu"]["text"] = {"model.width": 9, "model.depth": 3}
    profiles["large"] = {"text": {"model.width": 9, "model.depth": 5}}
    assert told(folder, profiles, parts, "make depth_text")[0].endswith(" PROFILE=large")
    assert told(folder, profiles, parts, "make figure1")[0].endswith(" PROFILE=cpu")  # by its model


def test_a_profile_may_sweep_and_name_a_data_set(tmp_path):
    profiles = {"cpu": {"mlp": {"model.depth": [3, 5], "dataset.name": "phrases"}}}
    folder = write_run(tmp_path, last(1), model={"name": "mlp", "depth": 5, "width": 8})
    assert told(folder, profiles) == ["make figure1 DATASET=digits EPOCHS=20 PROFILE=cpu"]
    profiles["paper"] = {"mlp": {"dataset.name": "digits"}}
    assert told(folder, profiles) == ["make figure1 EPOCHS=20 PROFILE=paper"]
    profiles["cpu"]["mlp"]["model.depth"] = [3, 4]
    profiles["paper"]["mlp"]["model.depth"] = [2, 4]
    assert told(folder, profiles) == ["make figure1 DATASET=digits EPOCHS=20"]


@pytest.mark.parametrize("profile", yaml.safe_load(PLAN.read_text())["profiles"])
def test_every_run_of_the_plan_is_repeated_by_its_own_profile(tmp_path, profile):
    """The configuration that the command would make, for every claim that asks for one."""
    for part in Plan(ROOT / "conf", "paper").resolve(["figure1", "figure3"], profile, seeds=[0]):
        for config in part.configs:
            folder = tmp_path / config.folder.name
            folder.mkdir(exist_ok=True)
            (folder / "config.yaml").write_text(to_yaml(config))
            run = load_runs([folder], finished_only=False)[0]
            (command,) = commands(claim(commands=("make x",)), run, load_plan(PLAN))
            assert command == f"make x DATASET={config.dataset.name} EPOCHS={config.epochs} PROFILE={profile}"


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


def test_the_command_of_the_other_data_sets_makes_such_a_run():
    (one,) = (one for one in load_ledger(LEDGER) if one.id == "last_k_saves")
    assert one.commands == ("make figure1 DATASET=cifar10",)
    assert "cifar10" not in one.treatment["dataset.name"]["not"]


@pytest.mark.parametrize(
    "text", ["", "profiles: 3", "[a", "profiles: {a: 3}", "profiles: {a: {}}", "{profiles: {}, parts: {a: {}}}"]
)
def test_a_plan_without_profiles_is_one_line(tmp_path, text):
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(AnalysisError, match=r"plan\.yaml: no profiles and parts to be read") as error:
        load_plan(file)
    assert "\n" not in str(error.value)
