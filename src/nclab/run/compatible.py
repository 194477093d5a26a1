"""What dataset, policy, objective, sampler, optimizer and phases of a run ask of each other."""

from nclab.config.schema import ConfigError, RunConfig, own_label
from nclab.data import Dataset
from nclab.etf import ETFPolicy
from nclab.training.objective import Objective
from nclab.training.phases import Phase
from nclab.training.sampler import Sampler


def require_compatible(
    config: RunConfig,
    dataset: Dataset,
    policy: ETFPolicy,
    objective: Objective,
    sampler: Sampler,
    phases: list[Phase],
) -> None:
    """Raise ConfigError where two parts, each right by itself, cannot train together."""
    if objective.rows and policy.settings.fixed_rows not in objective.rows:
        kinds = "" if "etf" in objective.rows else f"etf.kind={objective.rows[0]} "
        raise ConfigError(
            f"loss={config.loss.name} needs a classifier with fixed rows of length 1 and without bias: expected "
            f"etf=last_k {kinds}etf.bias=false, and no etf.classifier_scale; got etf={own_label(config.etf)}"
        )
    if policy.settings.needs_measures:
        _require_ncc(config, dataset)
    if policy.settings.needs_classes and dataset.targets.groups(dataset.train.targets) is None:
        raise ConfigError(
            f"etf={config.etf.name} follows class means: expected a dataset of classes, got "
            f"dataset={config.dataset.name}, whose targets are values"
        )
    for key, why in (("stop_at_loss", "ends the whole training"), ("best", "compares epochs of one phase")):
        if getattr(config, key) is not None and len(phases) > 1:
            raise ConfigError(f"{key} {why}: expected one phase, got phases={config.phases.name} with {len(phases)}")
    _require_plain_steps(config)
    if sampler.full_batch:
        _require_full_batch(f"sampler={config.sampler.name}", config, dataset, phases)
    if config.optimizer.closure:
        _require_full_batch(f"optimizer={config.optimizer.name}", config, dataset, phases)
        if policy.may_switch or policy.acts_in_steps:
            raise ConfigError(
                f"optimizer={config.optimizer.name} goes by the layers of earlier steps: expected a policy that "
                f"neither switches layers nor acts in a step, such as none or last_k; got etf={config.etf.name}"
            )


def _require_plain_steps(config: RunConfig) -> None:
    """Raise ConfigError where a step would take no second derivative, or ask for its objective several times, of which
    loss.complexity draws another estimate each time."""
    if not config.loss.complexity:
        return
    if config.compile:
        raise ConfigError("loss.complexity takes second derivatives, which compiled steps have not: set compile=false")
    if config.optimizer.closure:
        raise ConfigError(
            f"loss.complexity is drawn anew each time, and optimizer={config.optimizer.name} asks for one objective "
            "several times a step: expected an optimizer such as sgd"
        )


def _require_full_batch(who: str, config: RunConfig, dataset: Dataset, phases: list[Phase]) -> None:
    """Raise ConfigError where a step would take a part of the train split."""
    if config.batch_size not in (None, len(dataset.train)):
        raise ConfigError(
            f"{who} takes the whole train split at every step: expected batch_size null or {len(dataset.train)}, got "
            f"{config.batch_size}"
        )
    if parts := [phase.name for phase in phases if phase.rows is not None]:
        raise ConfigError(
            f"{who} takes the whole train split at every step: expected phases of all rows, got phases="
            f"{config.phases.name}, whose phase {parts[0]} has some of them"
        )


def _require_ncc(config: RunConfig, dataset: Dataset) -> None:
    """Raise ConfigError where a policy that decides by NCC accuracy could never act, since none is measured."""
    if "collapse" not in config.metrics.suite or dataset.targets.groups(dataset.train.targets) is None:
        raise ConfigError(
            f"etf={config.etf.name} decides by NCC accuracy: expected a dataset of classes, and collapse in "
            f"metrics.suite; got dataset={config.dataset.name} and metrics.suite=[{', '.join(config.metrics.suite)}]"
        )
