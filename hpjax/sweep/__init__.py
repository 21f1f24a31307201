"""A sweep: a study of trials, run group by group in lanes, in one workdir."""

from hpjax.sweep.run import Interrupted, SweepResult, load_result, plan_sweep, plan_sweep_for, run_sweep

__all__ = ["Interrupted", "SweepResult", "load_result", "plan_sweep", "plan_sweep_for", "run_sweep"]
