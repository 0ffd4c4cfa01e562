"""The policy-gradient core once more: loops over tokens in float64, written from the formulas.

Nothing here imports the project or jax. Gradients come from dual numbers: a value and its
derivatives by every log-prob, carried through each operation.
"""

import itertools
import math

import numpy as np
from rl_oracles_rare import distinct, unlikely, weighted


class Dual:
  """A number that depends on many: its value and its derivatives."""

  def __init__(self, value, slope):
    self.value, self.slope = float(value), np.asarray(slope, float)

  def __add__(self, other):
    other = as_dual(other, self)
    return Dual(self.value + other.value, self.slope + other.slope)

  def __mul__(self, other):
    other = as_dual(other, self)
    return Dual(self.value * other.value, self.slope * other.value + self.value * other.slope)

  def __neg__(self):
    return Dual(-self.value, -self.slope)

  def __sub__(self, other):
    return self + -as_dual(other, self)

  def __rsub__(self, other):
    return as_dual(other, self) - self

  def __truediv__(self, number):
    return Dual(self.value / number, self.slope / number)

  __radd__, __rmul__ = __add__, __mul__


def as_dual(x, like):
  return x if isinstance(x, Dual) else Dual(x, np.zeros_like(like.slope))


def constant(x):
  """stop_gradient."""
  return Dual(x.value, np.zeros_like(x.slope))


def exp(x):
  return Dual(math.exp(x.value), math.exp(x.value) * x.slope)


def clip(x, low, high):
  inside = low <= x.value <= high
  return x if inside else Dual(min(max(x.value, low), high), np.zeros_like(x.slope))


def smaller(a, b):
  return a if a.value <= b.value else b


def larger(a, b):
  return a if a.value >= b.value else b


def kl(logp, ref, kind, old=None):
  """logp a Dual; ref, old numbers."""
  d = logp - ref
  inverse = clip(-d, -20.0, 20.0)
  k3 = exp(inverse) - inverse - 1.0
  if kind == 'ratio_k3':
    return exp(clip(logp - (logp.value if old is None else old), -20.0, 20.0)) * k3
  if kind == 'k3_st':
    return Dual(k3.value, d.value * d.slope)
  if kind == 'abs':
    return d * float(np.sign(d.value))
  return {'k1': d, 'k2': d * d * 0.5, 'k3': k3}[kind]


def log_ratios(logps, olds, level):
  """The log-ratio of each token of one rollout, Duals."""
  token = [logp - old for logp, old in zip(logps, olds, strict=True)]
  total = sum(token[1:], token[0])
  mean = total / len(token)
  return {
    'token': token,
    'seq_sum': [total] * len(token),
    'seq_mean': [mean] * len(token),
    'seq_mean_token_grad': [Dual(mean.value, logp.slope) for logp in logps],
  }[level]


def surrogates(ratios, logps, advantages, row):
  """[(loss, bounded)] of one rollout's tokens; row has the cells of the table."""
  if row.surrogate == 'gmpo':
    return gmpo(ratios, advantages, row)
  return [surrogate(r, logp, a, row) for r, logp, a in zip(ratios, logps, advantages, strict=True)]


def surrogate(log_ratio, logp, a, row):
  kind, low, high = row.surrogate, row.clip_low, row.clip_high
  if kind == 'nll':
    return -logp, False
  if kind == 'reinforce':
    return -(logp * a), False
  if kind == 'dro':
    return -(logp * a) + log_ratio * log_ratio * (row.dro_beta / 2), False
  ratio = exp(clip(log_ratio, -20.0, 20.0))
  if kind == 'cispo':
    weight = constant(clip(ratio, 1 - low, 1 + high))
    return -(weight * logp * a), weight.value != ratio.value
  if kind == 'sapo':
    tau = row.tau_positive if a > 0 else row.tau_negative
    gate = 1 / (1 + math.exp(-tau * (ratio.value - 1)))
    return Dual(-a * 4 / tau * gate, -a * 4 * gate * (1 - gate) * ratio.slope), False
  if kind in ('dppo_tv', 'dppo_kl'):
    p, old = math.exp(logp.value), math.exp(logp.value - log_ratio.value)
    if kind == 'dppo_tv':
      blocked = p - old > high if a > 0 else (p - old < -low if a < 0 else False)
    else:
      divergence = old * math.log(old / p) + (1 - old) * math.log((1 - old) / (1 - p))
      blocked = (a > 0 and p > old and divergence > high) or (
        a < 0 and p < old and divergence > low
      )
    weight = min(ratio.value, row.ratio_cap) if row.ratio_cap else ratio.value
    return (logp * (0.0 if blocked else -weight * a)), blocked
  assert kind == 'ppo_clip'
  free, bounded = -(ratio * a), -(clip(ratio, 1 - low, 1 + high) * a)
  loss, cut = larger(free, bounded), bounded.value > free.value
  if row.dual_clip and a < 0 and loss.value > -a * row.dual_clip:
    return Dual(-a * row.dual_clip, np.zeros_like(loss.slope)), True
  return loss, cut


def gmpo(ratios, advantages, row):
  used = [
    clip(r, -math.inf if a >= 0 else -row.clip_low, row.clip_high if a > 0 else math.inf)
    for r, a in zip(ratios, advantages, strict=True)
  ]
  mean = sum(used[1:], used[0]) / len(used)
  loss = -(exp(clip(mean, -20.0, 20.0)) * float(np.mean(advantages)))
  return [(loss, u.value != r.value) for u, r in zip(used, ratios, strict=True)]


def off_policy(olds, samplers, row):
  """[(weight, keep)] of one rollout's tokens."""
  d = [old - sampler for old, sampler in zip(olds, samplers, strict=True)]
  ratio = [math.exp(min(max(x, -20.0), 20.0)) for x in d]
  low, high, kind = row.offpolicy_low, row.offpolicy_high, row.offpolicy
  if kind == 'none':
    return [(1.0, True)] * len(d)
  if kind == 'tis':
    return [(min(r, high), True) for r in ratio]
  if kind == 'seq_tis':
    return [(min(math.exp(min(max(sum(d), -20.0), 20.0)), high), True)] * len(d)
  if kind == 'icepop':
    return [(r, True) if low <= r <= high else (0.0, False) for r in ratio]
  if kind == 'seq_mask':
    keep = low <= math.exp(sum(d) / len(d)) <= high
    return [(r if keep else 0.0, keep) for r in ratio]
  value = divergences(d, row.offpolicy_stat)
  return [(1.0, True) if low <= v <= high else (0.0, False) for v in value]


def divergences(d, stat):
  """The statistic of each token of one rollout, from its log-ratios."""
  level, estimator = stat.rsplit('_', 1)
  each = [{'k1': -x, 'k2': x * x / 2, 'k3': math.exp(x) - x - 1}[estimator] for x in d]
  return {
    'token': each,
    'seq_sum': [sum(each)] * len(d),
    'seq_mean': [sum(each) / len(d)] * len(d),
    'seq_max': [max(each)] * len(d),
  }[level]


def aggregate(losses, lengths, mode, longest):
  """losses: a list of Duals for each rollout with at least one token."""
  sums = [sum(tokens[1:], tokens[0]) for tokens in losses]
  total = sum(sums[1:], sums[0])
  n = len(lengths)
  if mode == 'seq_mean_token_mean':
    means = [s / length for s, length in zip(sums, lengths, strict=True)]
    return sum(means[1:], means[0]) / n
  return (
    total
    / {
      'token_mean': sum(lengths),
      'token_sum': 1,
      'seq_mean_token_sum': n,
      'seq_mean_token_sum_norm': n * longest,
    }[mode]
  )


def policy_loss(arrays, mask, row, longest, entropy_slopes=None):
  """(loss, gradient [B,T] by logprobs, sums) of a whole batch; arrays of [B,T]."""
  unit = np.eye(mask.size).reshape(*mask.shape, mask.size)
  sums = {'clip': 0, 'kl': 0.0, 'left_out': 0, 'weight': 0.0}
  losses, lengths = [], []
  for i in range(len(mask)):
    at = np.flatnonzero(mask[i])
    if not len(at):
      continue
    logps = [Dual(arrays['logprobs'][i, t], unit[i, t]) for t in at]
    olds, samplers = arrays['old_logprobs'][i, at], arrays['sampler_logprobs'][i, at]
    behind = samplers if row.old_policy == 'sampler' else olds
    advantages = arrays['advantages'][i, at]
    ratios = log_ratios(logps, behind, row.ratio)
    tokens = []
    for j, (loss, cut) in enumerate(surrogates(ratios, logps, advantages, row)):
      t = at[j]
      sums['clip'] += cut
      if row.token_select != 'none':
        if arrays['penalised'][i, t]:
          loss = loss + kl(logps[j], behind[j], 'abs') * row.select_coef
        if not arrays['keep'][i, t]:
          loss = loss * 0.0
      weight, keep = off_policy(olds, samplers, row)[j]
      loss = loss * weight
      sums['weight'] += weight
      sums['left_out'] += not keep
      if arrays.get('ref_logprobs') is not None:
        estimate = kl(logps[j], arrays['ref_logprobs'][i, t], row.kl_kind, behind[j])
        sums['kl'] += estimate.value
        if row.kl_in == 'loss':
          loss = loss + estimate * (row.kl_coef * weight)
      if row.entropy_coef:
        entropy = Dual(arrays['entropy'][i, t], unit[i, t] * entropy_slopes[i, t])
        loss = loss - entropy * row.entropy_coef
      tokens.append(loss if keep else loss * 0.0)
    losses.append(tokens)
    lengths.append(len(at))
  loss = aggregate(losses, lengths, row.aggregation, longest)
  return loss.value, loss.slope.reshape(mask.shape), sums


def returns(rewards, mask, gamma):
  result = np.zeros(mask.shape)
  for i, row in enumerate(mask):
    at = np.flatnonzero(row)
    for place, t in enumerate(at):
      result[i, t] = sum(gamma**n * rewards[i, u] for n, u in enumerate(at[place:]))
  return result


def gae(rewards, values, mask, gamma, lam):
  """Sum over the future of (gamma lam)^n delta, delta between tokens under the mask."""
  advantages, targets = np.zeros(mask.shape), np.zeros(mask.shape)
  for i, row in enumerate(mask):
    at = np.flatnonzero(row)
    value = [values[i, t] for t in at] + [0.0]
    delta = [rewards[i, t] + gamma * value[n + 1] - value[n] for n, t in enumerate(at)]
    for n, t in enumerate(at):
      advantages[i, t] = sum((gamma * lam) ** (m - n) * delta[m] for m in range(n, len(at)))
      targets[i, t] = advantages[i, t] + values[i, t]
  return advantages, targets


def whiten(x, mask, shift_mean=True):
  entries = x[mask]
  result = np.zeros(mask.shape)
  if len(entries) == 0:
    return result
  mean = sum(entries) / len(entries)
  variance = sum((e - mean) ** 2 for e in entries) / (len(entries) - 1) if len(entries) > 1 else 0
  result[mask] = (entries - mean) / math.sqrt(variance + 1e-8) + (0 if shift_mean else mean)
  return result


def shaped(score, length, truncated, kl_tok, mask, *, coef, limit, buffer, factor, scale, replace):
  result = np.zeros(mask.shape)
  for i, row in enumerate(mask):
    s = score[i]
    if truncated[i]:
      s = s * scale if replace is None else replace
    if buffer and length[i] > limit - buffer:
      s += max(-(length[i] - (limit - buffer)) / buffer * factor, -factor)
    at = np.flatnonzero(row)
    for t in at:
      result[i, t] = -coef * kl_tok[i, t]
    if len(at):
      result[i, at[-1]] += s
  return result


def pass_at_k(right, k):
  """Share of the subsets of size k that hold a right one, by enumeration."""
  subsets = list(itertools.combinations(right, k))
  return sum(any(s) for s in subsets) / len(subsets)


def credits(scores, kind, k, *, rank_coef=0.25, likelihood=None, forms=None):
  """The transformed scores of one group; pass@k ones by enumeration of subsets."""
  n, right = len(scores), [s > 0.5 for s in scores]
  k = min(k, n)
  if kind == 'identity':
    return list(scores)
  if kind == 'signed':
    return [1.0 if r else -1.0 for r in right]
  if kind == 'unlikely':
    return unlikely(right, likelihood, rank_coef)
  if kind in ('distinct', 'distinct_loo'):
    return distinct(right, forms, kind)
  if kind == 'best_gap':
    first, second = (*sorted(scores, reverse=True), -math.inf)[:2]
    if n == 1 or first == second:
      return [0.0] * n
    return [first - second if s == first else 0.0 for s in scores]
  subsets = list(itertools.combinations(range(n), k))
  holding = [[s for s in subsets if i in s] for i in range(n)]
  won = [[any(right[j] for j in s) for s in mine] for mine in holding]
  others = [[any(right[j] for j in s if j != i) for s in mine] for i, mine in enumerate(holding)]
  if kind == 'pkpo':  # sum over the subsets that hold i, of all subsets
    return [sum(w) / len(subsets) for w in won]
  if kind == 'pkpo_loo':
    return [(sum(w) - sum(o)) / len(subsets) for w, o in zip(won, others, strict=True)]
  mean = pass_at_k(right, k)
  spread = math.sqrt(mean * (1 - mean))
  if spread == 0:
    return [0.0] * n
  return [(sum(w) / len(w) - mean) / spread for w in won]


def group_advantages(scores, group, valid, lengths, greedy, row):
  """One advantage a rollout after credit, from baseline and scale."""
  everyone = [scores[i] for i in range(len(scores)) if valid[i]]
  result = np.zeros(len(scores))
  for i in range(len(scores)):
    if not valid[i]:
      continue
    members = [j for j in range(len(scores)) if group[j] == group[i] and valid[j]]
    mine, n = [scores[j] for j in members], len(members)
    mean = sum(mine) / n
    long = [lengths[j] for j in members]
    below = {
      'none': lambda: 0.0,
      'group_mean': lambda: mean,  # noqa: B023
      'loo': lambda: (sum(mine) - scores[i]) / (n - 1) if n > 1 else 0.0,  # noqa: B023
      'greedy': lambda: greedy[group[i]],  # noqa: B023
      'length_weighted': lambda: np.dot(long, mine) / sum(long),  # noqa: B023
      'batch_mean': lambda: sum(everyone) / len(everyone),
    }[row.baseline]()
    a = scores[i] - below
    varies = len(set(mine)) > 1
    if row.scale == 'group_std' and n > row.ddof and varies:
      a /= np.std(mine, ddof=row.ddof) + row.eps
    if row.scale == 'batch_std' and len(everyone) > row.ddof and len(set(everyone)) > 1:
      a /= np.std(everyone, ddof=row.ddof) + row.eps
    if row.scale == 'bernoulli_std' and varies:
      a /= math.sqrt(max(mean * (1 - mean), 0)) + row.eps
    if row.scale == 'solve_rate' and mean > 0:
      a /= mean + row.eps
    within = row.baseline in ('group_mean', 'length_weighted') or (row.baseline == 'loo' and n > 1)
    if (within and len(set(mine)) == 1) or (
      row.baseline == 'batch_mean' and len(set(everyone)) == 1
    ):
      a = 0.0
    result[i] = a
  return result


def advantages_of(row, rewards, mask, group, valid, values, greedy, likelihood=None, forms=None):
  """Any row of the table; rewards, values [B,T], greedy a number for each group."""
  mask = mask & valid[:, None]
  if row.per_token == 'gae':
    result, targets = gae(rewards, values, mask, row.gamma, row.lam)
  elif row.per_token == 'returns':
    result, targets = returns(rewards, mask, row.gamma), None
    if row.baseline == 'greedy':
      result = np.where(mask, result - greedy[group][:, None], 0.0)
  else:
    targets = None
    scores = np.array([rewards[i][mask[i]].sum() for i in range(len(mask))])
    credited = scores.copy()
    for g in set(group[valid]):
      members = np.flatnonzero((group == g) & valid)
      value = np.array(
        credits(
          scores[members],
          row.credit,
          row.pass_k,
          rank_coef=row.rank_coef,
          likelihood=None if likelihood is None else likelihood[members],
          forms=None if forms is None else forms[members],
        )
      )
      summed = row.credit in ('pkpo', 'pkpo_loo')  # these sum over a group: times its size
      credited[members] = value * len(members) if summed else value
    one = group_advantages(credited, group, valid, mask.sum(axis=1), greedy, row)
    if row.focal or row.repeat_coef:
      one = weighted(row, one, scores, group, valid, forms)
    result = np.where(mask, one[:, None], 0.0)
  if row.whiten:
    result = whiten(result, mask)
  result = np.where(result > 0, row.positive, row.negative) * result
  return result, targets
