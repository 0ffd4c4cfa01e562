"""Paged decode attention against a float64 softmax, its exactness, and what it says it read."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.models import paged
from rlvr_jax.models.cache import KVCache

pytestmark = pytest.mark.usefixtures('strict')
# slots, bank rows, bank tokens, page, pages a slot, kv heads, group, head dim
CASES = {
  'short prompts': (5, 3, 24, 16, 3, 2, 2, 8),
  'shared prompts': (32, 5, 192, 64, 5, 2, 7, 16),
  'one page a slot': (64, 40, 16, 16, 1, 1, 4, 8),
  'more rows than slots': (9, 20, 128, 32, 4, 1, 3, 8),
  'one slot': (1, 1, 128, 32, 2, 2, 1, 8),
}


class Case:
  """A random cache and random slots, about a fifth of them inactive."""

  def __init__(self, S, R, Tp, page, M, K, G, H):
    rng = np.random.default_rng(S)
    self.shape = S, R, Tp, page, M, K, G, H

    def normal(*shape, scale=1.0):
      return rng.normal(0, scale, shape).astype(np.float32)

    # large keys and queries: without the running maximum the weights would overflow
    scales = 4.0, 1.0
    self.bank = [normal(R, K, Tp, H, scale=x) for x in scales]
    self.pages = [normal(S * M + 3, K, page, H, scale=x) for x in scales]
    self.table = rng.permutation(S * M + 3)[: S * M].reshape(S, M).astype(np.int32)
    self.rows = rng.integers(0, R, S).astype(np.int32)
    self.prompts = rng.integers(0, Tp + 1, R).astype(np.int32)
    self.prompts[0] = 0
    self.lengths = rng.integers(0, page * M, S).astype(np.int32)
    self.active = np.arange(S) % 5 != 3
    self.q = normal(S, K * G, H, scale=6.0)
    self.new = [normal(S, K, H, scale=x) for x in scales]

  def run(self, order=None):
    order = np.arange(self.shape[0]) if order is None else order
    slots = paged.Slots(
      *(jnp.asarray(x[order]) for x in (self.rows, self.lengths, self.table, self.active))
    )
    new = [jnp.asarray(x[order]) for x in self.new]
    layer = tuple(map(_transposed, (*self.bank, *self.pages), (True, False) * 2))
    out, pages, plan = _attend(
      jnp.asarray(self.q[order]), *new, layer, slots, jnp.asarray(self.prompts)
    )
    return out, tuple(map(_transposed, pages, (True, False))), plan

  def written(self):
    """The pages once every active slot has put its new token there."""
    page = self.shape[3]
    pages = [x.copy() for x in self.pages]
    for s in np.flatnonzero(self.active):
      where = self.table[s, self.lengths[s] // page], slice(None), self.lengths[s] % page
      for own, new in zip(pages, self.new, strict=True):
        own[where] = new[s]
    return pages

  def expected(self, s):
    K, G, H = self.shape[5:]
    prompt, own = self.prompts[self.rows[s]], self.lengths[s] + 1
    k, v = (
      np.concatenate(
        [bank[self.rows[s], :, :prompt], np.concatenate(list(pages[self.table[s]]), 1)[:, :own]], 1
      ).astype(np.float64)
      for bank, pages in zip(self.bank, self.written(), strict=True)
    )
    z = np.einsum('kgh,ksh->kgs', self.q[s].reshape(K, G, H).astype(np.float64), k) / math.sqrt(H)
    weights = np.exp(z - z.max(-1, keepdims=True))
    out = np.einsum('kgs,ksh->kgh', weights / weights.sum(-1, keepdims=True), v)
    return out.reshape(K * G, H)


def _transposed(x, keys):
  """Keys lie with the tokens last, values with the head's axis last."""
  return jnp.swapaxes(jnp.asarray(x), -1, -2) if keys else jnp.asarray(x)


@jax.jit
def _attend(q, new_k, new_v, layer, slots, prompts):
  bank_k, bank_v, page_k, page_v = layer
  cache = KVCache(bank_k=[bank_k], bank_v=[bank_v], page_k=[page_k], page_v=[page_v])
  plan = paged.plan_step(slots, prompts, cache)
  return *paged.paged_attention(q, new_k, new_v, layer, plan), plan


@pytest.mark.parametrize('name', CASES)
def test_attention_is_the_softmax_over_prompt_and_pages(name):
  case = Case(*CASES[name])
  out, pages, _ = case.run()
  for got, expected in zip(pages, case.written(), strict=True):
    np.testing.assert_array_equal(got, expected)
  for s in range(case.shape[0]):
    expected = case.expected(s) if case.active[s] else 0
    np.testing.assert_allclose(out[s], np.broadcast_to(expected, out[s].shape), rtol=0, atol=2e-5)


@pytest.mark.parametrize('name', CASES)
def test_a_slot_has_the_same_bits_in_any_place_and_company(name):
  case = Case(*CASES[name])
  out, _, _ = case.run()
  rng = np.random.default_rng(0)
  for _ in range(3):
    order = rng.permutation(case.shape[0])
    np.testing.assert_array_equal(case.run(order)[0], np.asarray(out)[order])
  # the others gone
  alone = rng.random(case.shape[0]) < 0.3
  case.active &= alone
  kept = np.flatnonzero(case.active)
  np.testing.assert_array_equal(np.asarray(case.run()[0])[kept], np.asarray(out)[kept])


@pytest.mark.parametrize('name', CASES)
def test_what_was_read_is_counted_unit_by_unit(name):
  case = Case(*CASES[name])
  S, _, Tp, page, M = case.shape[:5]
  plan = case.run()[-1]
  live = case.active
  own = np.where(live, case.lengths + 1, 0)
  in_use = sorted(set(case.rows[live].tolist()))
  assert int(plan.live) == own.sum() + case.prompts[in_use].sum()

  def units(users, tile):
    return -(-users // tile)

  tile = paged.unit_slots(jnp.asarray(case.pages[0]), S, M)
  having = [(own > j * page).sum() for j in range(M)]
  read = page * tile * sum(units(n, tile) for n in having)
  if Tp < paged.SHARED_FROM:
    tile = paged.unit_slots(jnp.asarray(case.bank[0]), S, 1)
    read += Tp * tile * units(live.sum(), tile)
  else:
    for row in in_use:
      block = min(Tp, paged.BANK_BLOCK)
      blocks = max(1, units(case.prompts[row], block))
      read += block * blocks * units((case.rows[live] == row).sum(), min(paged.TILE, S))
  assert int(plan.read) == read
