"""Whether samples of several models may be compared: what differs between them, by name."""

import dataclasses
from collections.abc import Collection, Sequence

from rlvr_jax.eval import samples
from rlvr_jax.eval.importers import NO_CHANCE
from rlvr_jax.eval.sources import Source
from rlvr_jax.eval.tables import Table

ALLOW = ('prompts', 'verifiers', 'ragged')  # words of compare.allow
# what says how the draws of a model were made; the others tell models or runs apart
_DRAWING = ('temperature', 'top_p', 'top_k', 'max_tokens', 'stop_ids', 'turns', 'environment')
_TELLING = ('seed', 'data', 'weights', 'model', 'stream', 'coupling', 'first', 'stop_after')


@dataclasses.dataclass(frozen=True)
class Warned:
  """Something that differs and was let through; the report says it."""

  title: str
  text: str


def common_problems(sources: Sequence[Source], common: bool) -> tuple[list[str], list[Warned]]:
  """The problems to compare on, in the first source's order; ValueError if the sets differ.

  common: compare on those that all have, and say which were left out.
  """
  sets = {source.name: set(source.counts.problem_ids) for source in sources}
  shared = set.intersection(*sets.values())
  left_out = {name: sorted(ids - shared) for name, ids in sets.items() if ids - shared}
  if not left_out:
    return list(sources[0].counts.problem_ids), []
  named = '; '.join(
    f'{len(ids)} of {name} that not all have, {_few(ids)}' for name, ids in left_out.items()
  )
  if not shared:
    raise ValueError(f'the stores have no problem in common: {named}. Do their ids mean the same?')
  if not common:
    raise ValueError(
      f'the stores are of different problems ({named}); sample the missing ones, or compare the '
      f'{len(shared)} that all have with --config.compare.common=True'
    )
  text = f'Compared on the {len(shared)} problems that all stores have. Left out: {named}.'
  kept = [problem for problem in sources[0].counts.problem_ids if problem in shared]
  return kept, [Warned('Different problem sets', text)]


def check_copies(sources: Sequence[Source]) -> list[Warned]:
  """ValueError for a name given twice, and for the same samples under two names.

  A few equal counts may be chance, which is said and no more.
  """
  names = [source.name for source in sources]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise ValueError(
      f'stores: {", ".join(twice)} names several of them; give each a name, as '
      f'--config.stores=base={sources[0].path},rl=...'
    )
  for name in names:
    samples.check_name('store', name)
  warned = []
  for i, b in enumerate(sources):
    for a in sources[:i]:
      alike = _alike(a, b)
      if alike == 'copies':
        raise ValueError(
          f'{b.name} and {a.name} are the same samples ({b.path}, {a.path}); their difference '
          'would be zero whatever the models do'
        )
      if alike:
        text = (
          f'{b.name} and {a.name} have as many correct draws of every problem. That may be chance; '
          'if one is a copy of the other, their difference says nothing.'
        )
        warned.append(Warned('Equal counts', text))
  return warned


def _alike(a: Source, b: Source) -> str:
  """'copies', 'equal counts' where that may be chance, else ''."""
  told = a.folder is not None or any(row.text for row in a.rows or ())
  if a.path == b.path or (told and a.content == b.content):
    return 'copies'
  x, y = a.counts, b.counts
  if x.problem_ids != y.problem_ids or (x.n != y.n).any() or (x.c != y.c).any():
    return ''
  mixed = int(((x.c > 0) & (x.c < x.n)).sum())
  return 'copies' if mixed >= NO_CHANCE else 'equal counts'


def check_verifiers(sources: Sequence[Source], allowed: bool) -> list[Warned]:
  """ValueError for verdicts of different verifiers or versions, unless that is allowed."""
  by_version: dict[str, list[str]] = {}
  for source in sources:
    by_version.setdefault(source.verifier, []).append(source.name)
  known = {version: names for version, names in by_version.items() if version}
  warned = []
  if '' in by_version and len(sources) > 1:
    warned.append(
      Warned(
        'Verifier not known',
        f'The files of {", ".join(by_version[""])} do not say who judged (a column verifier): that '
        'it is one verifier for all is taken on trust.',
      )
    )
  if len(known) < 2:
    return warned
  named = ', '.join(f'{version!r} ({", ".join(names)})' for version, names in known.items())
  if not allowed:
    raise ValueError(
      f'the stores hold verdicts of different verifiers: {named}. A difference between models '
      'would be one of verifiers too: judge one anew with configs/score.py, or compare all the '
      'same with --config.compare.allow=verifiers'
    )
  text = (
    f'Verdicts are of different verifiers: {named}. Differences between models are partly theirs.'
  )
  return [*warned, Warned('Different verifiers', text)]


def check_prompts(
  sources: Sequence[Source], problems: Collection[str], allowed: bool
) -> list[Warned]:
  """ValueError for prompts, templates or problem texts that differ, unless that is allowed."""
  found = []
  hashes = {s.name: s.prompt_hash for s in sources if s.prompt_hash}
  if len(set(hashes.values())) > 1:
    shown = ', '.join(f'{name} {value}' for name, value in hashes.items())
    found.append(f'the prompt templates differ (hash: {shown})')
  data = {s.name: s.data for s in sources if s.data not in ('', 'by problem')}
  if len(set(data.values())) > 1:
    shown = ', '.join(f'{name} {value}' for name, value in data.items())
    found.append(f'the problems were read from different contents (hash: {shown})')
  tasks = {s.name: s.task for s in sources if s.task and s.folder is None}
  if len(set(tasks.values())) > 1:
    shown = ', '.join(f'{name} {value!r}' for name, value in tasks.items())
    found.append(f'the samples are of different tasks ({shown})')
  for i, a in enumerate(sources):
    for b in sources[i + 1 :]:
      changed = [p for p in problems if a.digests.get(p, '') != b.digests.get(p, '')]
      if changed and a.digests and b.digests:
        found.append(f'{len(changed)} problems are not the same in {a.name} and {b.name}, e.g. '
                     f'{min(changed)!r}')  # fmt: skip
      found += _texts_differ(a, b, problems)
  if not found:
    return []
  if not allowed:
    raise ValueError(
      f'{"; ".join(found)}. A model is measured through its prompt, so this is no comparison of '
      'models alone: sample with one prompt, or compare all the same with '
      '--config.compare.allow=prompts'
    )
  text = '; '.join(found)
  return [
    Warned('Different prompts', f'{text[0].upper()}{text[1:]}. Differences are partly theirs.')
  ]


def _texts_differ(a: Source, b: Source, problems: Collection[str]) -> list[str]:
  if (a.kind == 'sample store') != (b.kind == 'sample store'):
    return []  # ours keep the problem, other tools the text around it too
  for what, field in (('prompts', 'prompt'), ('reference answers', 'answer')):
    both = [p for p in problems if p in a.problems and p in b.problems]
    texts = [(p, *(getattr(s.problems[p], field) for s in (a, b))) for p in both]
    differ = [(p, x, y) for p, x, y in texts if x and y and _plain(x) != _plain(y)]
    if differ:
      problem, x, y = differ[0]
      return [
        f'{what} of {a.name} and {b.name} differ in {len(differ)} of {len(both)} problems, e.g. '
        f'{problem!r}: {_apart(_plain(x), _plain(y))}'
      ]
  return []


def _plain(text: object) -> str:
  return str(text).strip()


def _apart(x: str, y: str) -> str:
  """Both texts from shortly before their first difference."""
  at = next((i for i, (a, b) in enumerate(zip(x, y, strict=False)) if a != b), min(len(x), len(y)))
  begin = max(0, at - 20)
  return f'{x[begin : at + 30]!r} against {y[begin : at + 30]!r}'


def check_settings(sources: Sequence[Source]) -> tuple[list[Warned], Table | None]:
  """What differs in how the models were sampled, as a warning and a table; never refused."""
  names = dict.fromkeys(
    [*_DRAWING, *(key for s in sources for key in s.settings if key not in _TELLING)]
  )
  rows, differing, unknown = [], [], []
  for key in names:
    values = [s.settings.get(key) for s in sources]
    told = [value for value in values if value is not None]
    if len({str(value) for value in told}) > 1:
      differing.append(key)
      rows.append([key, *values, 'differs'])
    elif told and len(told) < len(values):
      unknown.append(key)
      rows.append([key, *values, 'not known of all'])
  if not rows:
    return [], None
  parts = []
  if differing:
    parts.append(
      f'The models were sampled with different {", ".join(differing)}: what differs between them '
      'may be that.'
    )
  if unknown:
    parts.append(f'Not known of every store: {", ".join(unknown)}.')
  title = 'Different sampling settings' if differing else 'Sampling settings not known'
  table = Table(
    'Settings that differ or are not known',
    ['setting', *(s.name for s in sources), ''],
    rows,
    parts[0],
  )
  return [Warned(title, ' '.join(parts))], table


def check_draws(sources: Sequence[Source]) -> list[Warned]:
  """What to say of coupled, early-stopped and ragged draws, and of different efforts."""
  found = []
  coupled = [s.name for s in sources if s.counts.coupling == 'common']
  if coupled:
    found.append(
      Warned(
        'Common random numbers',
        f'The samples of {", ".join(coupled)} share their random numbers '
        '(sampling.coupling=common), so tests that need independent samples are left out for them.',
      )
    )
  for source in sources:
    if source.rule:
      found.append(
        Warned(
          f'{source.name} was stopped early',
          f'Problems got {source.rule[0]} draws, and none after that once {source.rule[1]} were '
          f'correct: pass@k is from the first {source.rule[0]} draws only.',
        )
      )
    low, high = int(source.counts.n.min()), int(source.counts.n.max())
    if low < high:
      found.append(
        Warned(
          f'Ragged numbers of draws in {source.name}',
          f'n is from {low} to {high}: each problem counts with its own, and k ends at {low}.',
        )
      )
  totals = {s.name: int(s.counts.n.sum()) for s in sources}
  if max(totals.values()) > 1.02 * min(totals.values()):
    shown = ', '.join(f'{name} {total:,}' for name, total in totals.items())
    found.append(
      Warned(
        'Different efforts',
        f'Samples that count: {shown}. pass@k allows for that; coverage, which grows with effort, '
        'is left out for such pairs. --config.compare.samples=... takes as many from each.',
      )
    )
  return found


def _few(ids: Sequence[str]) -> str:
  return ', '.join(repr(p) for p in ids[:5]) + (' ...' if len(ids) > 5 else '')
