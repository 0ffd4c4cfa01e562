"""Distributions over tokens in float64, by sorting, and how to hold draws to them."""

import jax
import jax.numpy as jnp
import numpy as np
from exactness import log_softmax
from scipy import stats

from rlvr_jax.sampling.draw import Options


def options(temperature=1.0, top_p=1.0, top_k=0):
  return Options(jnp.float32(temperature), jnp.float32(top_p), jnp.int32(top_k))


def keys(n, seed=0):
  return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(n))


def truncated(z, settings):
  """The exact law [V] in float64, by sorting: temperature, then top-k, then top-p."""
  p = np.exp(log_softmax(np.asarray(z, np.float64) / float(settings.temperature)))
  order = np.argsort(-p, kind='stable')
  keep = np.ones(len(p), bool)
  if settings.top_k > 0:
    keep[order[int(settings.top_k) :]] = False
  q = np.where(keep, p, 0)
  q = q / q.sum()
  if settings.top_p < 1:
    before = np.cumsum(q[order]) - q[order]
    keep[order[before >= float(settings.top_p)]] = False
  q = np.where(keep, p, 0)
  return q / q.sum()


def chi_square_p(tokens, law):
  """p-value of the counts against the law; cells of under 8 expected draws are pooled."""
  counts = np.bincount(tokens, minlength=len(law)).astype(float)
  expected = law * len(tokens)
  rare = expected < 8
  counts = np.append(counts[~rare], counts[rare].sum())
  expected = np.append(expected[~rare], expected[rare].sum())
  if expected[-1] < 8:
    counts[-2:] = counts[-2:].sum(), 0
    expected[-2:] = expected[-2:].sum(), 0
    counts, expected = counts[:-1], expected[:-1]
  return stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue
