"""The budget's bytes are those allocated; what fits is used; what does not is refused."""

import jax
import pytest
import tiny

from rlvr_jax.sampling import budget
from rlvr_jax.sampling.engine import Engine
from rlvr_jax.sampling.layout import hand_over
from rlvr_jax.sampling.types import Item, Sampling

SIZES = {'prompt_capacity': 150, 'completion_capacity': 60, 'page': 16, 'dtype': 'float32'}


def test_bytes_are_those_the_engine_allocates():
  config, params = tiny.make()
  params = hand_over(None, params)
  priced = budget.price(config, slots=6, bank_rows=3, pages=10, **SIZES)
  capacities = {'prompt_capacity': 150, 'completion_capacity': 60}
  engine = Engine(params, config, slots=6, bank_rows=3, page=16, pages=10, steps=4, **capacities)
  list(engine.run([Item(0, 0, 0, 0, (1, 2))], Sampling(max_tokens=2)))
  assert engine._state is not None
  assert priced.bank + priced.pool == sum(x.nbytes for x in jax.tree.leaves(engine._state.cache))
  assert priced.weights == sum(x.nbytes for x in jax.tree.leaves(params))


@pytest.mark.parametrize('shards', [1, 4])
def test_a_budget_is_used_and_not_exceeded(shards):
  config = tiny.CONFIG
  wanted = {'slots': 64, 'bank_rows': 8, 'shards': shards, **SIZES}
  whole = budget.price(config, pages=0, **wanted)
  assert budget.fit(config, whole.total * 2, **wanted) == whole
  seen = set()
  for share in (0.9, 0.6, 0.4, 0.3):
    memory = int(whole.total * share)
    fitted = budget.fit(config, memory, **wanted)
    assert 0.6 * memory < fitted.total <= memory
    assert fitted.slots % shards == 0
    assert fitted.pages % shards == 0
    assert fitted.pages * 4 >= fitted.full_pages
    lean = fitted.pages < fitted.full_pages
    assert ('begin anew' in budget.describe(fitted)) == lean
    seen.add((fitted.slots, fitted.pages))
  assert len(seen) > 2
  assert 'begin anew' not in budget.describe(whole)
  with pytest.raises(ValueError, match=r'sampling.memory_gb=.* too little.*60 tokens'):
    budget.fit(config, whole.weights + 1000, **wanted)


def test_tensor_parallel_weights_and_heads_are_split():
  wanted = {'slots': 8, 'bank_rows': 8, 'pages': 0, **SIZES}
  one, two, four = (budget.price(tiny.CONFIG, tensor=n, **wanted) for n in (1, 2, 4))
  assert two.weights * 2 == one.weights
  assert two.pool * 2 == one.pool
  assert four.pool == one.pool  # 4 does not divide the 2 kv heads: they are replicated
