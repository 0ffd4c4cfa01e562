"""Several families in one run: every problem keeps its verifier, template and held-out split."""

import loops
import pytest

from rlvr_jax.rl.distill import pair_source
from rlvr_jax.rl.scratch import from_scratch
from rlvr_jax.tasks import countdown, countdown_cot
from rlvr_jax.tasks.load import content_hash, family, load_problems
from rlvr_jax.tasks.registry import verifier_name

SMALL = {'problems': 6, 'largest': 6}
FAMILIES = {
  'countdown': {'params': SMALL},
  'cot': {'name': 'countdown_cot', 'params': SMALL | {'seed': 3}, 'holdout': 3},
}


def config(families=None, **changes):
  return loops.config(
    **{'task.name': 'mixed', 'task.params': families or FAMILIES, 'task.holdout': 4} | changes
  )


def alone(name, holdout, **params):
  return load_problems(
    loops.config(**{'task.name': name, 'task.params': SMALL | params, 'task.holdout': holdout}).task
  )


def test_a_mixture_is_its_families_labelled():
  train, held = load_problems(config().task)
  parts = {'countdown': alone('countdown', 2), 'cot': alone('countdown_cot', 3, seed=3)}
  assert len(train) == 12
  assert [p.meta['family'] for p in held] == ['cot', 'countdown', 'cot', 'countdown', 'cot']
  for label, (own, out) in parts.items():
    for mine, whole in ((train, own), (held, out)):
      found = [p for p in mine if p.meta['family'] == label]
      assert [p.id for p in found] == [f'{label}/{p.id}' for p in whole]
      assert [p.prompt for p in found] == [p.prompt for p in whole]
      assert [verifier_name(p) for p in found] == [verifier_name(p) for p in whole]
  assert {p.task for p in train + held} == {'mixed'}
  assert {verifier_name(p) for p in train} == {'countdown', 'countdown_cot'}


def test_verdicts_are_those_of_each_family():
  train, _ = load_problems(config().task)
  for problem in train:
    own = {'countdown': countdown, 'countdown_cot': countdown_cot}[verifier_name(problem)]
    ((_, text),) = own.corpus([problem], seed=1, noise=0.0)
    assert own.verify(problem, text).verdict == 'correct'


def test_a_model_from_scratch_knows_all_letters_and_learns_every_corpus():
  both = config()
  train, _ = load_problems(both.task)
  _, tokenizer = from_scratch(both)
  assert set(family(both.task).ALPHABET) == {*countdown.ALPHABET, *countdown_cot.ALPHABET}
  pairs = pair_source(both, train)(0)
  assert len(pairs) == both.distill.batch
  assert any(';' in text for _, text in pairs)  # of countdown_cot alone
  assert any(';' not in text for _, text in pairs)
  for prompt, text in pairs:
    assert isinstance(prompt, str)
    assert tokenizer.decode(tokenizer.encode(prompt + text)) == prompt + text


def test_a_family_has_its_own_template():
  asked = {'plain': {'name': 'countdown', 'params': SMALL}, 'asked': None}
  asked['asked'] = asked['plain'] | {'template': 'abel'}
  train, _ = load_problems(config(asked).task)
  plain = [p for p in train if p.meta['family'] == 'plain']
  other = [p for p in train if p.meta['family'] == 'asked']
  for a, b in zip(plain, other, strict=True):
    assert a.prompt != b.prompt
    assert str(a.prompt) in str(b.prompt)
    assert 'assistant' in str(b.prompt)


def test_the_content_is_that_of_all_families():
  assert content_hash(config().task) == content_hash(config(dict(FAMILIES)).task)
  more = FAMILIES | {'countdown': {'params': SMALL | {'problems': 9}}}
  assert content_hash(config(more).task) == content_hash(config().task)  # more of the same
  other = FAMILIES | {'countdown': {'params': SMALL | {'largest': 7}}}
  assert content_hash(config(other).task) != content_hash(config().task)


@pytest.mark.parametrize(
  ('families', 'message'),
  [
    ({'problems': 4}, r'takes a label and a task group for each family'),
    ({'countdown': {'largest': 4}}, r"task.params\['countdown'\]: 'largest' is none of name"),
    ({'mixed': {}}, r'a mixture holds families, not mixtures'),
    ({'countdown': {'template': 'chat'}}, r"template='chat': a family has its own where it is"),
    ({'countdwon': {}}, r'countdwon'),
  ],
)
def test_a_mixture_that_is_none_is_refused(families, message):
  with pytest.raises(ValueError, match=message):
    load_problems(config(families).task)
