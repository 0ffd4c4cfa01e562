"""Numbers for what completions say, so that a group's can be told apart on a device."""

from collections.abc import Sequence

import numpy as np

from rlvr_jax.rl.collect import Group
from rlvr_jax.rl.types import Rollouts
from rlvr_jax.tasks.canonical import form_of
from rlvr_jax.tasks.problem import Problem


def with_forms(
  rollouts: Rollouts, groups: Sequence[Group], problems: Sequence[Problem], kind: str
) -> Rollouts:
  """rollouts (collect.assemble of groups) with their forms: numbers from 0 within each group.

  kind: what makes completions the same (tasks/canonical.py).
  """
  found = []
  for group in groups:
    numbers: dict[str, int] = {}
    for scored in group.scored:
      form = form_of(problems[group.index], scored.text, scored.verdict, kind)
      found.append(numbers.setdefault(form, len(numbers)))
  return rollouts.replace(forms=np.array(found, np.int32))
