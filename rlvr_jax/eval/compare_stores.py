"""job=compare: a boundary report from samples that are there, ours or another tool's. No jax."""

import contextlib
import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax.config import Config
from rlvr_jax.eval import agree, sources
from rlvr_jax.eval.drawn import store_name
from rlvr_jax.eval.importers import Draws
from rlvr_jax.eval.keep import keep
from rlvr_jax.eval.publish import publish
from rlvr_jax.eval.rejudge import rejudged
from rlvr_jax.eval.results import ModelResult
from rlvr_jax.eval.sources import Source
from rlvr_jax.eval.tables import Table
from rlvr_jax.tasks.pool import VerifierPool, pool_of
from rlvr_jax.tasks.problem import Problem

ROLES = ('base', 'rl', 'distilled', 'instruct', 'teacher')


@dataclasses.dataclass(frozen=True)
class Role:
  """What a store is compared as; algorithm and training seed where they were given."""

  role: str
  algorithm: str | None = None
  seed: int | None = None


def compare(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
  """Writes the report of config.stores into workdir and returns results.json.

  The first store is the base unless compare.base names another. workdir/samples gets them all as
  one sample store, for the report and any further job. Raises ValueError for what is
  damaged, mixed or not comparable, naming store, values and the way out.
  """
  begin = time.monotonic()
  c = config.compare
  found = open_all(config, workdir)
  names = [source.name for source in found]
  if c.base and c.base not in names:
    raise ValueError(f'compare.base={c.base!r}: the stores are {", ".join(names)}')
  base = c.base or names[0]
  found = sorted(found, key=lambda source: source.name != base)  # stable: the rest as given
  roles = roles_of(c.roles, found, names)
  ids, warned, tables = check(found, words(c.allow), common=c.common)
  models = measured(found, ids, roles)
  for one in warned:
    print(f'warning: {one.title}. {one.text}', file=sys.stderr)
  problems = shown_problems(found, ids)
  several = len(found) > 1
  document = publish(
    config,
    workdir,
    keep(found, workdir / 'samples', problems[0].task),
    models,
    problems,
    headline=[s.name for s in found[:2]],
    title=config.study.title or ' against '.join(reversed([s.name for s in found[:2]])),
    seconds=time.monotonic() - begin,
    texts=[
      *config.study.texts.items(),
      *([('To be read with care', warning_text(warned))] if warned and several else []),
    ],
    more_tables=[*tables, source_table(found)],
    extra={
      'sources': [described(source) for source in found],
      'warnings': [dataclasses.asdict(one) for one in warned],
    },
  )
  return document


def open_all(config: Config, workdir: pathlib.Path) -> list[Source]:
  """The stores of a config, each read and found whole by itself."""
  given = words(config.stores)
  if not given:
    raise ValueError(
      'job=compare needs samples: --config.stores=base=PATH,rl=PATH. A path is a run, a store '
      '(WORKDIR/samples/MODEL/TASK), or a Parquet, JSONL, CSV or JSON file; docs/samples.md has '
      'every format'
    )
  c, allow = config.compare, words(config.compare.allow)
  if unknown := [word for word in allow if word not in agree.ALLOW]:
    raise ValueError(
      f'compare.allow={c.allow!r}: {", ".join(unknown)} is none of {", ".join(agree.ALLOW)}'
    )
  found = []
  with contextlib.ExitStack() as stack:
    judge = None
    if c.verifier:
      pool = stack.enter_context(pool_of(config.verifier, workdir))
      judge = functools.partial(_judged, verifier=c.verifier, pool=pool)
    for one in given:
      source = sources.open_source(
        one,
        task=c.task,
        samples=c.samples,
        fields={key: value for key, value in c.fields.items() if value},
        metric=c.metric,
        ragged='ragged' in allow,
        judge=judge,
      )
      print(
        f'{source.name}: {source.kind}, {len(source.counts)} problems, '
        f'{int(source.draws.sum()):,} samples in {source.path}',
        file=sys.stderr,
      )
      found.append(source)
  _check_used(c, found)
  return found


def _check_used(c: Config, found: Sequence[Source]) -> None:
  """ValueError for a metric or columns that were named and that no store was read by."""
  harness = ('lm-evaluation-harness samples', 'evalplus results')
  if c.metric and not any(source.kind in harness for source in found):
    raise ValueError(
      f'compare.metric={c.metric!r} is of logs of lm-evaluation-harness and results of evalplus, '
      'and none of the stores is one; leave it out'
    )
  named = [f'compare.fields.{key}={value}' for key, value in c.fields.items() if value]
  if named and all(source.kind in (*harness, 'sample store') for source in found):
    raise ValueError(
      f'{", ".join(named)}: none of the stores has columns that may be named; leave it out'
    )


def _judged(draws: Draws, path: pathlib.Path, *, verifier: str, pool: VerifierPool) -> Draws:
  return rejudged(draws, verifier, pool, path)


def words(text: str) -> list[str]:
  """The parts of a comma text."""
  return [word.strip() for word in text.split(',') if word.strip()]


def roles_of(text: str, found: Sequence[Source], names: Sequence[str]) -> dict[str, Role]:
  """Role of each model by name: as given, in the order of the stores, else base and then rl.

  A role is one of ROLES; rl:ALGORITHM:SEED says which seed of which algorithm a model is, without
  which nothing is said of algorithms.
  """
  given = words(text)
  if not given:
    return {source.name: Role('base' if i == 0 else 'rl') for i, source in enumerate(found)}
  roles = [_role(text, one) for one in given]
  if len(roles) != len(names):
    raise ValueError(
      f'compare.roles={text!r} must name one of {", ".join(ROLES)} for each of the {len(names)} '
      'stores, in their order'
    )
  return dict(zip(names, roles, strict=True))


def _role(text: str, given: str) -> Role:
  role, *more = given.split(':')
  whole = role == 'rl' and len(more) == 2 and bool(more[0]) and more[1].isdecimal()
  if role not in ROLES or (more and not whole):
    raise ValueError(
      f'compare.roles={text!r}: {given!r} is none of {", ".join(ROLES)} or rl:ALGORITHM:SEED, as '
      'rl:grpo:1'
    )
  return Role(role, more[0], int(more[1])) if more else Role(role)


def check(
  found: Sequence[Source], allow: Sequence[str], *, common: bool
) -> tuple[list[str], list[agree.Warned], list[Table]]:
  """(problems to compare on, what to say, tables); ValueError for what is not comparable."""
  warned = agree.check_copies(found)
  ids, left_out = agree.common_problems(found, common)
  warned += left_out
  warned += agree.check_verifiers(found, 'verifiers' in allow)
  warned += agree.check_prompts(found, ids, 'prompts' in allow)
  differing, table = agree.check_settings(found)
  warned += [*differing, *agree.check_draws(found)]
  return ids, warned, [table] if table else []


def measured(
  found: Sequence[Source], ids: Sequence[str], roles: Mapping[str, Role]
) -> list[ModelResult]:
  """The sources as models of a report, on these problems."""
  stopped = [source for source in found if source.reached]
  n = min((source.n_asked for source in stopped), default=0)
  same_rule = len({source.rule for source in stopped}) == 1
  models = []
  for source in found:
    reached = None
    if source.reached and same_rule and n > (source.rule or (0, 0))[0]:
      reached = source.reached(n).select(ids)
    counts = source.counts
    models.append(
      ModelResult(
        source.name,
        roles[source.name].role,
        counts if list(counts.problem_ids) == list(ids) else counts.select(ids),
        settings={
          **source.settings,
          'prompt_hash': source.prompt_hash or None,
          'verifier': source.verifier or None,
        },
        reached=reached,
        algorithm=roles[source.name].algorithm,
        seed=roles[source.name].seed,
      )
    )
  return models


def shown_problems(found: Sequence[Source], ids: Sequence[str]) -> list[Problem]:
  """The problems with prompt and answer from the first source that has them."""
  ours = (source.task for source in found if source.folder)
  theirs = next((store_name(s.task) for s in found if s.task), '')  # as openai/gsm8k
  task = next(ours, '') or theirs or 'samples'
  problems = []
  for problem in ids:
    known = [s.problems[problem] for s in found if problem in s.problems]
    prompt = next((p.prompt for p in known if p.prompt), '')
    answer = next((p.answer for p in known if p.answer is not None), None)
    problems.append(Problem(problem, task, prompt, answer))
  return problems


def warning_text(warned: Sequence[agree.Warned]) -> str:
  """One paragraph a warning."""
  return '\n\n'.join(f'{one.title}. {one.text}' for one in warned)


def source_table(found: Sequence[Source]) -> Table:
  """Where every store came from."""
  rows = [
    [s.name, s.kind, pathlib.Path(s.path).name, len(s.counts), int(s.draws.sum()),
     s.verifier or None, '; '.join(s.notes) or None]
    for s in found
  ]  # fmt: skip
  names = ['store', 'format', 'read from', 'problems', 'samples', 'verifier', 'notes']
  shown = [i for i in range(len(names)) if any(row[i] is not None for row in rows)]
  return Table(
    'What was compared',
    [names[i] for i in shown],
    [[row[i] for i in shown] for row in rows],
    'Formats are recognised by content. A dash among the token counts, or those of what was cut, '
    'means that the files do not say.',
  )


def described(source: Source) -> dict[str, Any]:
  """A source in results.json."""
  return {
    'name': source.name,
    'format': source.kind,
    'path': source.path,
    'problems': len(source.counts),
    'samples': int(source.draws.sum()),
    'verifier': source.verifier or None,
    'settings': dict(source.settings),
    'notes': list(source.notes),
  }
