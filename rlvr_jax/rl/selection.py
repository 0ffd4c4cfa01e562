"""Which tokens, and which groups, an update learns from."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_jax.rl.algorithms import TOKEN_SELECT


class Selected(NamedTuple):
  """Per token, in the shape of the mask: whose loss counts, and whose drift is punished."""

  keep: jax.Array
  penalised: jax.Array


def token_select(
  advantages: jax.Array,
  logprobs: jax.Array,
  entropy: jax.Array | None,
  mask: jax.Array,
  key: jax.Array | None,
  kind: str,
  *,
  share: float = 2e-4,
  low: float = 1.0,
  high: float = 5.0,
) -> Selected:
  """Chooses among all tokens of an optimizer batch, before it is cut: arrays f[...] of one shape.

  logprobs and entropy are those before the step. With cov = (A - mean A)(log pi - mean log pi):
  clip_cov: max(1, floor(share tokens)) drawn by `key` among low < cov < high do not count. kl_cov:
  as many with the largest cov are penalised (both Cui et al. 2025).
  top_entropy: as many with the largest entropy count alone (Wang et al. 2025).
  """
  everything = Selected(jnp.ones_like(mask), jnp.zeros_like(mask))
  if kind == 'none':
    return everything
  tokens = jnp.sum(mask.astype(advantages.dtype))
  count = jnp.maximum(jnp.floor(share * tokens), 1)
  if kind == 'top_entropy':
    assert entropy is not None
    return everything._replace(keep=_first(-entropy, mask, count))
  if kind not in ('clip_cov', 'kl_cov'):
    raise ValueError(f'train.token_select={kind!r}: known are {", ".join(TOKEN_SELECT)}')

  def centred(x: jax.Array) -> jax.Array:
    x = jnp.where(mask, x, 0.0)
    return x - jnp.sum(x) / jnp.maximum(tokens, 1)

  cov = centred(advantages) * centred(logprobs)
  if kind == 'kl_cov':
    return everything._replace(penalised=_first(-cov, mask, count))
  assert key is not None
  candidates = mask & (cov > low) & (cov < high)
  drawn = _first(jax.random.uniform(key, mask.shape, cov.dtype), candidates, count)
  return everything._replace(keep=~drawn)


def _first(x: jax.Array, among: jax.Array, count: jax.Array) -> jax.Array:
  """The `count` smallest of x among some, as a mask of the same shape."""
  order = jnp.argsort(jnp.where(among, x, jnp.inf).reshape(-1))
  place = jnp.zeros_like(order).at[order].set(jnp.arange(order.size, dtype=order.dtype))
  return among & (place.reshape(x.shape) < count.astype(order.dtype))


class Groups(NamedTuple):
  """Indices into the queue that was judged, in draw order."""

  taken: list[int]  # fewer than were needed where more have to be sampled
  dropped: list[int]  # out of the band
  carried: list[int]  # not looked at: surplus, or behind a group that is not finished


def select_groups(
  queue: Sequence[np.ndarray | None], band: tuple[float, float], need: int
) -> Groups:
  """Dynamic sampling: the first `need` groups, in draw order, that have something to teach.

  queue: for each group, in the order it was drawn, the metric of its completions (1 for a right
  answer, else 0), or None where it is not finished. Taken are those whose metric is not constant
  and whose mean lies in [band[0], band[1]]; (0, 1) is DAPO's rule (Yu et al. 2025, eq. 11). Judging
  stops at the first unfinished group, whoever finished behind it: taking those first would favour
  short completions. Surplus is carried over to the next iteration, never thrown away.
  """
  taken: list[int] = []
  dropped: list[int] = []
  for i, metric in enumerate(queue):
    if len(taken) == need or metric is None:
      return Groups(taken, dropped, list(range(i, len(queue))))
    values = np.asarray(metric)
    teaches = values.min() != values.max() and band[0] <= values.mean() <= band[1]
    (taken if teaches else dropped).append(i)
  return Groups(taken, dropped, [])
