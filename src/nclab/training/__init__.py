"""The epoch loop and what it calls: step, evaluation, objective, optimizers, stacked seeds."""
