"""The prefix trees hold every sample once, merge what begins alike, and are picked by rule."""

import itertools

import numpy as np
import pytest

from rlvr_jax.eval import figures_tree, results
from rlvr_jax.eval.counts import Counts
from rlvr_jax.eval.figures_tree import Node, Samples, pick, prefix_tree
from rlvr_jax.eval.samples import SampleStore
from tests.test_eval_samples import make_row


def samples_of(words, correct=()):
  return Samples([tuple(map(ord, word)) for word in words], words, [w in correct for w in words])


def nodes(node):
  yield node
  for child in node.children:
    yield from nodes(child)


def test_what_begins_alike_is_one_branch():
  words = ['12+3', '12+3', '12-3', '9', '12+4']
  tree = prefix_tree(samples_of(words, {'12+3'}), smallest=0)
  assert (tree.text, tree.count, tree.correct) == ('', 5, 2)
  first, second = tree.children
  assert (first.text, first.count, first.correct) == ('12', 4, 2)
  assert (second.text, second.count, second.children) == ('9', 1, ())
  plus, minus = first.children
  assert (plus.text, plus.count) == ('+', 3)
  assert [(one.text, one.count, one.correct) for one in plus.children] == [('3', 2, 2), ('4', 1, 0)]
  assert (minus.text, minus.count) == ('-3', 1)


@pytest.mark.parametrize('smallest', [0, 0.02, 0.2])
@pytest.mark.parametrize('levels', [0, 1, 3, 20])
def test_every_sample_is_counted_once_at_every_fork(levels, smallest):
  rng = np.random.default_rng(levels)
  words = [''.join(rng.choice(list('abc'), rng.integers(0, 7))) for _ in range(200)]
  right = {word for word in words if word.startswith('a')}
  tree = prefix_tree(samples_of(words, right), levels=levels, smallest=smallest)
  assert (tree.count, tree.correct) == (200, sum(word in right for word in words))
  for node in nodes(tree):
    if node.children:
      assert node.count == sum(child.count for child in node.children)
      assert node.correct == sum(child.correct for child in node.children)
      assert sum(child.others > 0 for child in node.children) <= 1
      assert (
        all(c.count >= smallest * 200 for c in node.children if not c.others)
        or len([c for c in node.children if c.count < smallest * 200]) == 1
      )
    assert not (node.children and node.others)


def test_leaves_of_the_whole_tree_are_the_distinct_samples():
  words = [''.join(w) for w in itertools.product('xy', repeat=4)] + ['xy', 'xyx', 'xyx']
  tree = prefix_tree(samples_of(words), levels=50, smallest=0)

  def ends(node, before=''):
    text = before + node.text
    if not node.children:
      return {text: node.count}
    return {k: v for child in node.children for k, v in ends(child, text).items()}

  assert ends(tree) == {word: words.count(word) for word in set(words)}


def study_of(base, rl, n=32):
  ids = tuple(f'p{i}' for i in range(len(base)))
  models = [
    results.ModelResult(name, name, Counts(ids, np.full(len(base), n), np.array(c)))
    for name, c in (('base', base), ('rl', rl))
  ]
  return results.analyse(models, resamples=50)


def test_problems_are_picked_by_the_rule_that_is_told():
  a, b = pick(study_of([1, 4, 9, 0, 3], [3, 32, 0, 1, 0]))
  assert (a.problem_id, b.problem_id) == ('p1', 'p2')
  assert 'of the 2 problems that only base solves' in b.rule
  a, b = pick(study_of([1, 8], [3, 4]))
  assert (a.problem_id, b.problem_id) == ('p0', 'p1')
  assert b.title == 'B, fell most'


def test_the_figure_is_drawn_from_the_store(tmp_path):
  store = SampleStore(tmp_path)
  texts = {'p0': ('1+2', '1-2', 'x$y$\n\N{GRINNING FACE}'), 'p1': ('3*4', '3*5', '7')}
  for model in ('base', 'rl'):
    with store.writer(model, 'sums', {'temperature': 1.0}, prompt_hash='h') as writer:
      for problem, sample in itertools.product(texts, range(12)):
        text = texts[problem][(sample + (model == 'rl') * (sample % 2)) % 3]
        verdict = (
          'correct' if text in ('1+2', '3*4') and (model == 'base' or problem == 'p0') else 'wrong'
        )
        row = make_row(problem, sample, verdict=verdict, text=text, tokens=[ord(c) for c in text],
                       length=len(text), task='sums')  # fmt: skip
        writer.append(row)
  models = [results.ModelResult(m, m, store.counts(m, 'sums')) for m in ('base', 'rl')]
  study = results.analyse(models, resamples=20)
  plot = figures_tree.tree_figure(study, store, 'sums')
  assert plot.svg.count(b'<path') > 30
  assert 'p1' in plot.caption
  found = figures_tree.read_samples(store, 'rl', 'sums', ['p0', 'p1'])
  assert {problem: len(one.tokens) for problem, one in found.items()} == {'p0': 12, 'p1': 12}
  assert sum(found['p0'].correct) == study.model('rl').counts.c[0]
  single = results.analyse(models[:1], headline=('base',), resamples=20)
  assert figures_tree.tree_figure(single, store, 'sums') is None


def test_labels_keep_to_what_the_font_draws():
  assert figures_tree._printable('a\nb') == 'a↵b'
  assert figures_tree._printable('\N{GRINNING FACE}漢x') == '??x'
  assert len(figures_tree._printable('y' * 100)) == figures_tree._LABEL
  assert Node('', 1, 0).children == ()
