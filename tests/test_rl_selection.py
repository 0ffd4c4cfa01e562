"""Tokens by covariance or entropy, groups by their mean: chosen as the formulas say."""

import jax
import numpy as np
import pytest

from rlvr_jax.rl.selection import select_groups, token_select

jitted = jax.jit(token_select, static_argnames='kind')


@pytest.fixture(autouse=True)
def double(strict):
  jax.config.update('jax_disable_most_optimizations', True)  # they compile faster
  with jax.enable_x64(True):
    yield
  jax.config.update('jax_disable_most_optimizations', False)


def draw():
  rng = np.random.default_rng(0)
  mask = rng.random((20, 30)) < 0.6
  arrays = (rng.normal(size=mask.shape), -rng.exponential(size=mask.shape), rng.random(mask.shape))
  return [np.where(mask, x, np.nan) for x in arrays], mask


def choose(kind, key=0, arrays=None, mask=None, **options):
  if arrays is None:
    arrays, mask = draw()
  found = jitted(*arrays, mask, jax.random.key(key), kind, **options)
  return np.asarray(found.keep), np.asarray(found.penalised)


def covariances():
  (advantages, logprobs, _), mask = draw()
  a, p = advantages[mask], logprobs[mask]
  result = np.full(mask.shape, np.nan)
  result[mask] = (a - sum(a) / len(a)) * (p - sum(p) / len(p))
  return result, mask


def test_none_keeps_everything():
  keep, penalised = choose('none')
  assert keep.all()
  assert not penalised.any()


def test_kl_cov_punishes_the_largest():
  cov, mask = covariances()
  keep, penalised = choose('kl_cov', share=0.1)
  assert keep.all()
  n = int(0.1 * mask.sum())
  assert sorted(cov[penalised]) == sorted(cov[mask])[-n:]
  assert choose('kl_cov', share=1e-9)[1].sum() == 1  # at least one


def test_clip_cov_draws_among_the_candidates():
  cov, mask = covariances()
  candidates = mask & (cov > 0.2) & (cov < 1.0)
  drawn = []
  for key in range(3):
    keep, penalised = choose('clip_cov', key, share=0.05, low=0.2, high=1.0)
    assert not penalised.any()
    assert (~keep).sum() == int(0.05 * mask.sum()) < candidates.sum()
    assert candidates[~keep].all()
    drawn.append(keep)
  assert (drawn[0] != drawn[1]).any()
  np.testing.assert_array_equal(drawn[0], choose('clip_cov', 0, share=0.05, low=0.2, high=1.0)[0])
  everything, _ = choose('clip_cov', share=1.0, low=0.2, high=1.0)
  np.testing.assert_array_equal(~everything, candidates)
  assert choose('clip_cov', low=1e3, high=1e4)[0].all()  # nobody to draw


def test_top_entropy_keeps_the_forks():
  (_, _, entropy), mask = draw()
  keep, _ = choose('top_entropy', share=0.2)
  n = int(0.2 * mask.sum())
  assert sorted(entropy[keep]) == sorted(entropy[mask])[-n:]
  assert not keep[~mask].any()


@pytest.mark.parametrize('kind', ['clip_cov', 'kl_cov', 'top_entropy'])
def test_more_filling_rows_choose_the_same(kind):
  arrays, mask = draw()
  more = [np.pad(x, ((0, 4), (0, 0)), constant_values=np.nan) for x in arrays]
  options = {'share': 0.1, 'low': 0.0, 'high': 5.0}
  wide = choose(kind, 0, more, np.pad(mask, ((0, 4), (0, 0))), **options)
  for got, expected in zip(wide, choose(kind, **options), strict=True):
    np.testing.assert_array_equal(got[: len(mask)][mask], expected[mask])


@pytest.mark.parametrize('kind', ['clip_cov', 'kl_cov', 'top_entropy'])
def test_an_empty_batch_chooses_nothing(kind):
  arrays, mask = draw()
  keep, penalised = choose(kind, 0, arrays, np.zeros_like(mask))
  assert not penalised.any()
  assert kind == 'top_entropy' or keep.all()


def test_unknown_kind():
  with pytest.raises(ValueError, match=r"train.token_select='cov': known are none, clip_cov"):
    choose('cov')


RIGHT, WRONG, MIXED = np.ones(4), np.zeros(4), np.array([0, 1, 0, 0.0])


def test_groups_are_taken_in_draw_order_and_surplus_is_carried():
  queue = [WRONG, MIXED, RIGHT, MIXED, WRONG, MIXED, MIXED]
  got = select_groups(queue, (0, 1), 3)
  assert got == ([1, 3, 5], [0, 2, 4], [6])
  rest = [queue[i] for i in got.carried]
  assert select_groups(rest, (0, 1), 1) == ([0], [], [])


def test_what_finished_first_is_not_taken_first():
  assert select_groups([MIXED, None, MIXED, MIXED], (0, 1), 2) == ([0], [], [1, 2, 3])
  assert select_groups([MIXED, MIXED, None], (0, 1), 2) == ([0, 1], [], [2])


def test_too_few_groups_and_a_band():
  assert select_groups([WRONG, MIXED], (0, 1), 2) == ([1], [0], [])
  assert select_groups([], (0, 1), 2) == ([], [], [])
  half = np.array([0, 1.0])
  assert select_groups([MIXED, half, MIXED], (0.3, 0.7), 3) == ([1], [0, 2], [])
  equal = np.full(4, 0.5)  # in the band, but nothing to compare
  assert select_groups([equal, half], (0, 1), 1) == ([1], [0], [])
