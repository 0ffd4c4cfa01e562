"""The left of the paper's Fig. 1 as a real picture: every sample of two problems as a prefix tree.

Samples that begin with the same tokens share a branch; a branch is as wide as their number. The
problems are picked by rule, never by hand.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from rlvr_jax.eval import shards
from rlvr_jax.eval.figures import Plot, drawn, to_svg
from rlvr_jax.eval.findings import percent
from rlvr_jax.eval.results import Study
from rlvr_jax.eval.samples import SampleStore

LEVELS = 5  # branchings drawn; what lies deeper is one end
SMALLEST = 0.02  # of the samples: smaller branches of one fork are drawn as one
CORRECT, WRONG = '#0072B2', '#E69F00'
_GAP = 0.012  # between branches, of the height of the picture
_LABEL = 14  # characters of a branch's text


@dataclasses.dataclass(frozen=True)
class Node:
  """Samples that begin alike: their number, the correct ones, and how they go on.

  text is what they write beyond their parent's common beginning, up to where they part (or end).
  others: so many small branches of a fork, together.
  """

  text: str
  count: int
  correct: int
  children: tuple['Node', ...] = ()
  others: int = 0


@dataclasses.dataclass(frozen=True)
class Samples:
  """Token ids, texts and verdicts of all samples of one problem by one model."""

  tokens: Sequence[tuple[int, ...]]
  texts: Sequence[str]
  correct: Sequence[bool]


def prefix_tree(samples: Samples, *, levels: int = LEVELS, smallest: float = SMALLEST) -> Node:
  """The tree of the samples by tokens; unbranched stretches are one node.

  A fork's branches stand in order of their number; those under `smallest` of all samples are one
  node without children. Counts of children sum to their parent's; a sample that ends at a fork is a
  branch of its own.
  """
  order = sorted(range(len(samples.tokens)), key=lambda i: samples.tokens[i])
  fewest = max(1.0, smallest * len(order))
  return _node(samples, order, 0, 0, levels, fewest)


def _node(
  samples: Samples, rows: list[int], at: int, said: int, levels: int, fewest: float
) -> Node:
  """The node of `rows`, which agree on their first `at` tokens and `said` characters."""
  first, last = samples.tokens[rows[0]], samples.tokens[rows[-1]]  # rows are sorted
  while at < min(len(first), len(last)) and first[at] == last[at]:
    at += 1
  texts = [samples.texts[row] for row in rows]
  common = _common(min(texts), max(texts))
  text, count = min(texts)[said:common], len(rows)
  correct = sum(samples.correct[row] for row in rows)
  if not levels or first == last:
    return Node(text, count, correct)
  branches = [
    list(group)
    for _, group in itertools.groupby(
      rows, key=lambda row: samples.tokens[row][at] if at < len(samples.tokens[row]) else -1
    )
  ]
  branches.sort(key=len, reverse=True)
  small = [branch for branch in branches if len(branch) < fewest]
  if len(small) == 1:
    small = []
  kept = branches[: len(branches) - len(small)]
  children = [_node(samples, branch, at, common, levels - 1, fewest) for branch in kept]
  if small:
    together = list(itertools.chain.from_iterable(small))
    right = sum(samples.correct[row] for row in together)
    children.append(Node('', len(together), right, others=len(small)))
  return Node(text, count, correct, tuple(children))


def _common(a: str, b: str) -> int:
  """Characters that two texts begin with alike."""
  return next(
    (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
  )


@dataclasses.dataclass(frozen=True)
class Picked:
  """One of the two problems of the picture, with the rule that picked it."""

  title: str
  problem_id: str
  rule: str


def pick(study: Study) -> list[Picked]:
  """The problem whose solve rate rose most, and the lost one with most correct base samples.

  Where no problem is lost, the one whose rate fell most stands in its place, and says so.
  """
  a, b = study.pair
  ids = study.problem_ids
  base, rl = (study.model(name).counts.select(ids) for name in (a, b))
  rise = rl.rates - base.rates
  most = int(np.argmax(rise))
  lost = np.flatnonzero((rl.c == 0) & (base.c > 0))
  picked = [
    Picked('A, sharpened', ids[most], f'the largest rise of the solve rate from {a} to {b}')
  ]
  if len(lost):
    where = int(lost[np.argmax(base.rates[lost])])
    rule = f'of the {len(lost)} problems that only {a} solves, the one it solves most often'
    picked.append(Picked('B, lost', ids[where], rule))
  else:
    rule = f'the largest fall of the solve rate, as {a} solves no problem that {b} does not'
    picked.append(Picked('B, fell most', ids[int(np.argmin(rise))], rule))
  return picked


def read_samples(
  store: SampleStore, model: str, task: str, problem_ids: Sequence[str]
) -> dict[str, Samples]:
  """Tokens, texts and verdicts of these problems, shard by shard; errors are left out."""
  rows: dict[str, list[dict[str, Any]]] = {problem: [] for problem in problem_ids}
  for path in shards.shard_paths(store.root / model / task):
    names = shards.read_shard(path, ['problem_id', 'visit'])
    wanted = [
      at
      for at, (problem, visit) in enumerate(
        zip(names['problem_id'].to_pylist(), names['visit'].to_pylist(), strict=True)
      )
      if problem in rows and not visit
    ]
    if wanted:
      columns = ['problem_id', 'tokens', 'text', 'verdict']
      for row in shards.read_shard(path, columns).take(wanted).to_pylist():
        if row['verdict'] != 'error':
          rows[row['problem_id']].append(row)
  return {
    problem: Samples(
      [tuple(row['tokens']) for row in found],
      [row['text'] for row in found],
      [row['verdict'] == 'correct' for row in found],
    )
    for problem, found in rows.items()
  }


@drawn
def tree_figure(study: Study, store: SampleStore, task: str) -> Plot | None:
  """Two problems, base beside trained, all samples as trees; None where nothing is compared."""
  if not study.paired:
    return None
  picked = pick(study)
  wanted = [one.problem_id for one in picked]
  found = {name: read_samples(store, name, task, wanted) for name in study.pair}
  figure = Figure(figsize=(7.4, 8.2), layout='constrained')
  grid = figure.subplots(2, 2)
  for row, one in enumerate(picked):
    for column, name in enumerate(study.pair):
      samples = found[name][one.problem_id]
      axes = grid[row, column]
      draw_tree(axes, prefix_tree(samples))
      right, total = sum(samples.correct), len(samples.correct)
      share = percent(right / total) if total else 'no samples'
      axes.set_title(f'{one.title}: {name}\n{right} of {total} correct ({share})', fontsize=11)
  handles = [
    Patch(facecolor=CORRECT, edgecolor='white', label='correct'),
    Patch(facecolor=WRONG, edgecolor='white', hatch='////', label='not correct'),
  ]
  figure.legend(handles=handles, loc='outside lower center', ncols=2)
  rules = '; '.join(
    f'{one.title.partition(",")[0]} ({one.problem_id}): {one.rule}' for one in picked
  )
  return Plot(
    'trees',
    'All samples of two problems, as trees',
    f'From left to right as written: samples that begin with the same tokens share a branch, as '
    f'wide as their number; {LEVELS} forks are drawn, and branches of under {SMALLEST:.0%} of the '
    f'samples as one (grey edge). Picked by rule, {rules}.',
    to_svg(figure),
  )


def draw_tree(axes: Axes, root: Node) -> None:
  """Draws the tree from left to right; heights are numbers of samples."""
  leaves = _leaves(root)
  scale = (1 - _GAP * max(0, len(leaves) - 1)) / root.count
  middles: dict[int, float] = {}
  top = 1.0
  for leaf in leaves:
    middles[id(leaf)] = top - leaf.count * scale / 2
    top -= leaf.count * scale + _GAP
  _place(root, middles)
  deepest = _depth(root)
  _ribbon(axes, -1, 0, middles[id(root)], middles[id(root)], root, scale)
  _branches(axes, root, 0, middles, scale)
  _label(axes, root, -1, middles[id(root)], scale, 'left')
  axes.set_xlim(-1, max(deepest, 1) + 0.85)
  axes.set_ylim(-0.01, 1.01)
  axes.set_axis_off()


def _leaves(node: Node) -> list[Node]:
  if not node.children:
    return [node]
  return [leaf for child in _ordered(node) for leaf in _leaves(child)]


def _ordered(node: Node) -> list[Node]:
  """Children as they stand from above: by the share that is correct, then by their number."""
  return sorted(node.children, key=lambda one: (-one.correct / one.count, -one.count))


def _depth(node: Node) -> int:
  return 1 + max(map(_depth, node.children)) if node.children else 0


def _place(node: Node, middles: dict[int, float]) -> float:
  if node.children:
    places = [_place(child, middles) for child in _ordered(node)]
    middles[id(node)] = (places[0] + places[-1]) / 2
  return middles[id(node)]


def _branches(axes: Axes, node: Node, level: int, middles: dict[int, float], scale: float) -> None:
  above = middles[id(node)] + node.count * scale / 2
  for child in _ordered(node):
    middle = above - child.count * scale / 2
    above -= child.count * scale
    _ribbon(axes, level, level + 1, middle, middles[id(child)], child, scale)
    _branches(axes, child, level + 1, middles, scale)
    _label(axes, child, level + 1, middles[id(child)], scale, 'right' if child.children else 'end')


def _ribbon(
  axes: Axes, x0: float, x1: float, y0: float, y1: float, node: Node, scale: float
) -> None:
  """A band from (x0, y0) to (x1, y1): its correct part above, the rest hatched below it."""
  total, right = node.count * scale, node.correct * scale
  parts = (
    (CORRECT, '', total / 2, total / 2 - right),
    (WRONG, '////', total / 2 - right, -total / 2),
  )
  bend = 0.55 * (x1 - x0)
  edge = '#777777' if node.others else 'white'
  for colour, hatch, high, low in parts:
    if high - low <= 0:
      continue
    points = [
      (x0, y0 + high), (x0 + bend, y0 + high), (x1 - bend, y1 + high), (x1, y1 + high),
      (x1, y1 + low), (x1 - bend, y1 + low), (x0 + bend, y0 + low), (x0, y0 + low), (x0, y0 + high),
    ]  # fmt: skip
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    width = 0.6 if high - low > 0.01 else 0.0
    axes.add_patch(
      PathPatch(Path(points, codes), facecolor=colour, edgecolor=edge, hatch=hatch, linewidth=width)
    )


def _label(axes: Axes, node: Node, x: float, y: float, scale: float, side: str) -> None:
  """The node's text, where its branch is wide enough to hold it."""
  text = f'{node.others} more' if node.others else _printable(node.text)
  if node.count * scale < 0.028 or not text:
    return
  left = side in ('left', 'end')
  axes.text(
    x + (0.04 if left else -0.04), y, text,
    ha='left' if left else 'right', va='center', fontsize=8,
    family='DejaVu Sans Mono', parse_math=False,
    bbox={'facecolor': 'white', 'alpha': 0.75, 'linewidth': 0, 'pad': 0.8},
  )  # fmt: skip


def _in_font(c: str) -> bool:
  """Whether DejaVu draws it: Latin, Greek, Cyrillic, arrows and mathematical operators."""
  return c.isprintable() and (c < '\u0530' or '\u2010' <= c < '\u2300')


def _printable(text: str) -> str:
  shown = ''.join(
    '\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}' if c == '\n' else c if _in_font(c) else '?'
    for c in text.strip(' ')
  )
  return shown if len(shown) <= _LABEL else shown[: _LABEL - 1] + '\N{HORIZONTAL ELLIPSIS}'
