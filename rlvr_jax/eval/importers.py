"""What other harnesses write, as draws: lm-evaluation-harness' sample logs, evalplus' results."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlvr_jax.eval import columns
from rlvr_jax.tasks.problem import VERDICTS

NO_CHANCE = (
  20  # problems, some draws of each correct: that all have equal counts twice is no chance
)


@dataclasses.dataclass(frozen=True, slots=True)
class Draw:
  """One completion with its verdict ('' where nobody judged it), or n of one problem, c correct.

  length in tokens and text are None where the file does not say.
  """

  problem: str
  sample: int
  verdict: str
  text: str | None = None
  length: int | None = None
  finish: str = ''
  extracted: str = ''
  reason: str = ''
  reward: float = 0.0
  n: int = 1
  c: int = 0


@dataclasses.dataclass(frozen=True)
class Draws:
  """What a file holds. kind names its format; settings: what is known of how it was sampled.

  prompts, answers: by problem, as far as the file has them. numbered: the samples have numbers of
  their own. counted: rows are problems with n and c.
  """

  kind: str
  rows: list[Draw]
  settings: Mapping[str, Any]
  prompts: Mapping[str, str]
  answers: Mapping[str, str]
  numbered: bool = False
  counted: bool = False
  unordered: bool = False


def sound(draws: Draws, path: pathlib.Path) -> Draws:
  """The draws with texts that can be written as UTF-8; ValueError for a text that is none."""
  rows = []
  for row in draws.rows:
    if row.text is not None and not isinstance(row.text, str):
      raise ValueError(
        f'{path}: sample {row.sample} of problem {row.problem!r}: the completion is '
        f'{columns.shown(row.text)}, no text'
      )
    texts = (row.text or '', row.finish, row.extracted, row.reason)
    mended = tuple(map(columns.whole_text, texts))
    if mended != texts:
      text, finish, extracted, reason = mended
      row = dataclasses.replace(row, text=text, finish=finish, extracted=extracted, reason=reason)
    rows.append(row)
  return dataclasses.replace(draws, rows=rows)


class Repeated(Exception):
  """An object of a JSON file has a key twice."""


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """An object_pairs_hook: a key that stands twice raises Repeated instead of winning."""
  found = dict(pairs)
  if len(found) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise Repeated(f'{twice!r} stands in it twice')
  return found


# ---- evalplus

_STATUS = {'pass': 'correct', 'fail': 'wrong', 'timeout': 'timeout'}


def evalplus(path: pathlib.Path, content: Mapping[str, Any], metric: str) -> Draws:
  """*_eval_results.json: {'eval': {task_id: [{base_status, plus_status, solution}, ...]}}.

  metric 'plus' (default): correct if it passes the original and the added tests; 'base': the
  original ones. Files of before 2024-05 hold {'base': [[status, ...], ...], 'plus': ...}.
  """
  if metric not in ('', 'plus', 'base'):
    raise ValueError(f'{path}: compare.metric={metric!r}, but evalplus has the metrics plus, base')
  metric = metric or 'plus'
  rows = []
  for problem, entries in content['eval'].items():
    where = f'{path}: {problem}'
    entries = _old_evalplus(entries, where) if isinstance(entries, dict) else entries
    if not isinstance(entries, list) or not entries:
      raise ValueError(
        f'{where} holds no list of results; the file is cut short or of another kind'
      )
    for sample, entry in enumerate(entries):
      verdict = _status(entry, 'base_status', f'{where}, sample {sample}')
      if metric == 'plus':
        plus = _status(entry, 'plus_status', f'{where}, sample {sample}')
        verdict = plus if verdict == 'correct' else verdict
      text = entry.get('solution')
      rows.append(Draw(problem, sample, verdict, text, reward=float(verdict == 'correct')))
  settings = {'verifier': f'evalplus {metric}'}
  if content.get('hash'):
    settings['verifier'] += f' {content["hash"]}'
  if not rows:
    raise ValueError(f'{path}: eval is empty; there is nothing to compare')
  return Draws('evalplus results', rows, settings, {}, {})


def _old_evalplus(entries: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
  base, plus = entries.get('base'), entries.get('plus') or []
  for results in (base, plus):
    if not isinstance(results, list) or not all(isinstance(r, list) and r for r in results):
      raise ValueError(f'{where}: {columns.shown(results)} is no list of [status, details]')
  if not isinstance(base, list) or (plus and len(plus) != len(base)):
    raise ValueError(f'{where}: {len(plus)} results of plus and {len(base or [])} of base')
  return [
    {'base_status': b[0], 'plus_status': plus[i][0] if plus else None} for i, b in enumerate(base)
  ]


def _status(entry: Any, name: str, where: str) -> str:
  status = entry.get(name) if isinstance(entry, dict) else None
  if status is None and name == 'plus_status':
    raise ValueError(
      f'{where} has no plus_status (evaluated with --base-only?); compare the original tests with '
      '--config.compare.metric=base'
    )
  if not isinstance(status, str) or status not in _STATUS:
    raise ValueError(f'{where}: {name}={columns.shown(status)} is none of {", ".join(_STATUS)}')
  return _STATUS[status]


# ---- lm-evaluation-harness

# names of per-sample metrics that say whether an answer is right, most telling first
_RIGHT = ('exact_match', 'pass@1', 'pass_at_1', 'acc', 'math_verify', 'correct')
_BESIDE = {
  'doc_id', 'doc', 'target', 'arguments', 'resps', 'filtered_resps', 'filter', 'metrics',
  'doc_hash', 'prompt_hash', 'target_hash',
}  # fmt: skip


def lm_eval(path: pathlib.Path, rows: Iterator[tuple[str, dict[str, Any]]], metric: str) -> Draws:
  """samples_TASK_DATE.jsonl of --log_samples: a line a document and filter.

  metric is 'NAME', 'NAME,FILTER' or ',FILTER'. A document with several repeats needs a list of as
  many values, or the share that is right (pass@1); a single verdict is of the first repeat only,
  and then the repeats are draws that nobody judged (verdict '').
  """
  name, _, wanted = (part.strip() for part in metric.partition(','))
  drawn: list[Draw] = []
  prompts: dict[str, str] = {}
  answers: dict[str, str] = {}
  settings: dict[str, Any] = {}
  seen: dict[tuple[str, str], str] = {}
  unordered = False
  filters: dict[str, None] = {}
  for where, row in rows:
    if 'doc_id' not in row:
      raise ValueError(f'{where}: no doc_id, which the lines before have; was a file joined to it?')
    problem, kept_by = columns.identity(row, 'doc_id', where), str(row.get('filter') or '')
    if (problem, kept_by) in seen:
      raise ValueError(
        f'{where}: doc_id {problem} is also at {seen[problem, kept_by]}; were two logs joined? '
        'Give them as files of one folder, whose repeats are then counted on'
      )
    seen[problem, kept_by] = where
    filters[kept_by] = None
    if wanted and kept_by != wanted:
      continue
    if not wanted and len(filters) > 1:
      raise ValueError(
        f'{where}: the log has several filters, {", ".join(filters)}; choose one with '
        f"--config.compare.metric='{name or 'exact_match'},{kept_by}'"
      )
    name = name or _metric(row, where)
    asked = _lm_settings(row, f'lm-evaluation-harness {name}', kept_by, where)
    _check_settings(path, settings or asked, asked, where)
    settings = asked
    prompt = _prompt(row)
    if prompt:
      prompts[problem] = prompt
    if row.get('target') is not None:
      answers[problem] = columns.whole_text(str(row['target']))
    repeats, is_share = _repeats(row, problem, name, where)
    drawn += repeats
    unordered = unordered or is_share
  if not drawn:
    raise ValueError(f'{path}: no line of filter {wanted!r}; there are {", ".join(filters)}')
  return Draws(
    'lm-evaluation-harness samples', drawn, settings, prompts, answers, unordered=unordered
  )


def _check_settings(
  path: pathlib.Path, before: Mapping[str, Any], now: Mapping[str, Any], where: str
) -> None:
  differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
  if differing:
    shown = ', '.join(f'{key}={now.get(key)!r} after {before.get(key)!r}' for key in differing)
    raise ValueError(
      f'{where}: several settings, {shown}. They are never averaged: split {path.name}, and give '
      'each part as a store'
    )


def _metric(row: Mapping[str, Any], where: str) -> str:
  there = [str(one) for one in row.get('metrics') or [key for key in row if key not in _BESIDE]]
  named = next((one for one in _RIGHT if one in there), '')
  if named or len(there) == 1:
    return named or there[0]
  raise ValueError(
    f'{where}: which of the metrics {", ".join(there) or "(none)"} says that an answer is right? '
    'Name it with --config.compare.metric=...'
  )


def _repeats(
  row: Mapping[str, Any], problem: str, metric: str, where: str
) -> tuple[list[Draw], bool]:
  """The draws of one line; whether only their share is known, not which of them are right."""
  texts = _texts(row)
  if metric not in row:
    there = [key for key in row if key not in _BESIDE]
    raise ValueError(f'{where}: no metric {metric!r}; the line has {", ".join(there) or "none"}')
  values = row[metric]
  is_share = not isinstance(values, list) and len(texts) > 1 and metric in ('pass@1', 'pass_at_1')
  if not isinstance(values, list):
    if is_share:
      right = _right(values, len(texts), metric, where)
      values = [i < right for i in range(len(texts))]
    elif len(texts) > 1:
      return [Draw(problem, i, '', text) for i, text in enumerate(texts)], False
    else:
      values = [values]
  if texts and len(texts) != len(values):
    raise ValueError(f'{where}: {len(texts)} repeats but {len(values)} values of {metric}')
  verdicts = [_verdict(value, metric, where) for value in values]
  return [
    Draw(problem, i, verdict, text, reward=float(verdict == 'correct'))
    for i, (verdict, text) in enumerate(zip(verdicts, texts or [None] * len(values), strict=True))
  ], is_share


def _right(share: Any, repeats: int, metric: str, where: str) -> int:
  """How many of the repeats are right; ValueError for what is no share of them."""
  found = None if isinstance(share, str) else columns.number(share)
  right = -1.0 if found is None else found * repeats
  if not 0 <= round(right) <= repeats or abs(right - round(right)) > 1e-6 * repeats:
    raise ValueError(f'{where}: {metric}={columns.shown(share)} is no share of {repeats} repeats')
  return round(right)


def _verdict(value: Any, metric: str, where: str) -> str:
  if isinstance(value, str) and value in VERDICTS:
    return value
  if value in (0, 1):  # true and false too
    return 'correct' if value == 1 else 'wrong'
  raise ValueError(
    f'{where}: {metric}={value!r} is neither 0 nor 1, so it does not say whether the answer is '
    'right; name another with --config.compare.metric=...'
  )


def _texts(row: Mapping[str, Any]) -> Sequence[str | None]:
  """The completions of a generated answer; none where they are not known, as of choices."""
  requests = row.get('resps')
  if not isinstance(requests, list) or len(requests) != 1:
    return []
  repeats = requests[0]
  if isinstance(repeats, str):
    return [repeats]
  if isinstance(repeats, list) and repeats and all(isinstance(one, str) for one in repeats):
    return repeats
  return []


def _first_argument(row: Mapping[str, Any], number: int) -> Any:
  """Argument `number` of the first request: a list of lists, or gen_args_0 -> arg_0."""
  arguments = row.get('arguments')
  if isinstance(arguments, dict):
    first = arguments.get('gen_args_0')
    return first.get(f'arg_{number}') if isinstance(first, dict) else None
  if isinstance(arguments, list) and arguments and isinstance(arguments[0], list):
    return arguments[0][number] if number < len(arguments[0]) else None
  return None


def _prompt(row: Mapping[str, Any]) -> str:
  text = _first_argument(row, 0)
  if text is None:  # what it was is not known, but whether it is another's
    named = (f'({name} {row[name]})' for name in ('prompt_hash', 'doc_hash') if row.get(name))
    return next(named, '')
  return columns.whole_text(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False))


def _lm_settings(row: Mapping[str, Any], verifier: str, kept_by: str, where: str) -> dict[str, Any]:
  found: dict[str, Any] = {'verifier': f'{verifier},{kept_by}' if kept_by else verifier}
  asked = _first_argument(row, 1)
  if isinstance(asked, dict):
    greedy = asked.get('do_sample') is False
    names = {'temperature': 'temperature', 'top_p': 'top_p', 'top_k': 'top_k',
             'max_gen_toks': 'max_tokens', 'max_tokens': 'max_tokens'}  # fmt: skip
    found |= {
      ours: columns.setting(ours, asked[name], where)
      for name, ours in names.items()
      if asked.get(name) is not None
    }
    if greedy:
      found['temperature'] = 0
  return found
