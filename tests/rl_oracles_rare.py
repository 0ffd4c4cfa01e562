"""Rows for coverage once more: loops from their formulas, over the completions of a group.

Nothing here imports the project or jax.
"""

import numpy as np


def likelihood_ranks(likelihood):
  """0 for the likeliest of a group; equal ones share the mean of the places they take up."""
  ranks = []
  for mine in likelihood:
    above = sum(other > mine for other in likelihood)
    alike = sum(other == mine for other in likelihood)
    ranks.append(sum(range(above, above + alike)) / alike)
  return ranks


def unlikely(right, likelihood, beta):
  """He et al. 2025: r (1 - beta (G - rank)/G); groups that are all right are left out."""
  n = len(right)
  if all(right):
    return [1.0] * n
  ranks = likelihood_ranks(likelihood)
  return [1 - beta * (n - rank) / n if r else 0.0 for r, rank in zip(right, ranks, strict=True)]


def distinct_right(right, forms):
  """How many different right answers a group has."""
  return len({form for r, form in zip(right, forms, strict=True) if r})


def distinct(right, forms, kind):
  """Shares in that number: split among those that say the same, or what each adds to the others."""
  result = []
  for i, r in enumerate(right):
    same = [j for j in range(len(right)) if right[j] and forms[j] == forms[i]]
    others = [j for j in range(len(right)) if j != i]
    without = distinct_right([right[j] for j in others], [forms[j] for j in others])
    added = distinct_right(right, forms) - without
    result.append((1 / len(same) if kind == 'distinct' else float(added)) if r else 0.0)
  return result


def weighted(row, one, scores, group, valid, forms):
  """Advantages of rollouts times their group's weight, less the price of repeating others."""
  result = np.array(one)
  for i in np.flatnonzero(valid):
    members = [j for j in np.flatnonzero(valid) if group[j] == group[i]]
    right = sum(scores[j] > 0.5 for j in members)
    result[i] *= (1 - right / len(members)) ** row.focal
    if row.repeat_of == 'wrong':
      pays = scores[i] <= 0.5
      same = [j for j in members if j != i and scores[j] <= 0.5 and forms[j] == forms[i]]
    else:
      pays, same = True, [j for j in members if j != i and forms[j] == forms[i]]
    if pays:
      result[i] -= row.repeat_coef * len(same) / len(members)
  return result


def entropy_coefs(entropies, start, target, delta, most):
  """The coefficient that each step uses: moved after each, off above the target."""
  coef, last, used = start, 0.0, []
  for entropy in entropies:
    used.append(coef if last <= target else 0.0)
    coef = min(max(coef + (delta if entropy < target else -delta), 0.0), most)
    last = entropy
  return used
