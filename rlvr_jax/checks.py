"""Relations between keys of a config that are refused before a run starts; part of config.check."""

import ast
import difflib
import math
import pathlib
import re
from typing import Any

from rlvr_jax import paths
from rlvr_jax.config_keys import ENVIRONMENTS, PARTS


def check(config: Any) -> None:
  """ValueError names key, value and the way out."""
  if config.job in ('train', 'study', 'distill', 'plan'):
    check_trained(config)
  if config.job == 'distill':
    check_distill(config)
  if config.job in ('train', 'study', 'plan'):
    check_keep_best(config)
    check_parts(config)
  if config.job != 'export':
    check_task(config)
  if config.job == 'export':
    check_export(config)
  if config.job == 'score':
    check_score(config)
  if config.model.name.startswith(('http://', 'https://')):
    check_served(config)


def check_parts(config: Any) -> None:
  """The names, files and weights of reward.parts."""
  parts = dict(config.reward.parts.items())
  if not parts or not any(parts.values()):
    raise ValueError(
      f"reward.parts={parts} rewards nothing; give a part a weight, as {{'correct': 1.0}}"
    )
  for name, weight in parts.items():
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight):
      raise ValueError(f'reward.parts[{name!r}]={weight!r}: a weight is a finite number')
    if name not in PARTS:
      check_named(f'reward.parts[{name!r}]', name, PARTS)


def check_task(config: Any) -> None:
  """The files that a task names, and its environment."""
  path, environment = config.task.module, config.task.environment
  if path:
    what = f'task.module={path!r}'
    if not path.endswith('.py'):
      raise ValueError(f'{what} is not a Python file: give path/to/file.py')
    check_named(what, f'{path}:problems', ())
  if environment and environment not in ENVIRONMENTS:
    check_named(f'task.environment={environment!r}', environment, ENVIRONMENTS)


def check_named(what: str, name: str, known: tuple[str, ...]) -> None:
  """ValueError, beginning with what, if 'file.py:name' is no such thing; the file is not run."""
  file, colon, inner = name.rpartition(':')
  if not colon or not file.endswith('.py') or not inner:
    near = difflib.get_close_matches(name, known, n=1)
    raise ValueError(
      f'{what} is not known'
      + (f'; did you mean {near[0]!r}?' if near else '')
      + f' (one of {", ".join(known)}, or path/to/file.py:name)'
    )
  path = pathlib.Path(file).expanduser()
  if not path.is_file():
    raise ValueError(f'{what}: there is no file {path.absolute()}')
  try:
    tree = ast.parse(path.read_text(encoding='utf-8'))
  except (SyntaxError, UnicodeDecodeError) as error:
    raise ValueError(f'{what}: {path} is not Python: {error}') from error
  names = top_names(tree)
  if inner not in names and '*' not in names:
    raise ValueError(
      f'{what}: {path} does not define {inner}; it defines {", ".join(sorted(names)) or "nothing"}'
    )


def top_names(tree: ast.Module) -> set[str]:
  """The names that a module binds at its top, '*' if it imports all of another's."""
  names: set[str] = set()
  nodes: list[ast.AST] = list(tree.body)
  while nodes:
    node = nodes.pop()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
      names.add(node.name)
      continue  # what is inside is not the module's
    if isinstance(node, ast.Import | ast.ImportFrom):
      names |= {(alias.asname or alias.name).partition('.')[0] for alias in node.names}
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
      names.add(node.id)
    nodes += ast.iter_child_nodes(node)
  return names


def check_keep_best(config: Any) -> None:
  """train.keep_best is a metric that the looks of this config measure."""
  metric, t = config.train.keep_best, config.train
  if not metric:
    return
  k = metric.removeprefix('eval/').removeprefix('pass@')
  if metric not in (f'pass@{k}', f'eval/pass@{k}') or not k.isdigit():
    raise ValueError(
      f"train.keep_best={metric!r} is no metric of held-out problems; write 'pass@1', or another k"
    )
  if not t.eval_every or not t.eval_problems or not config.task.holdout:
    raise ValueError(
      f'train.keep_best={metric!r} needs looks at held-out problems: set train.eval_every, '
      'train.eval_problems and task.holdout above 0'
    )
  if not 1 <= int(k) <= t.eval_samples or (int(k) & (int(k) - 1) and int(k) != t.eval_samples):
    raise ValueError(
      f'train.keep_best={metric!r}: a look measures pass@k for k = 1, 2, 4, ... up to '
      f'train.eval_samples={t.eval_samples}; raise that, or take another k'
    )


def check_trained(config: Any) -> None:
  """The adapters and frozen params of a config."""
  rank, alpha, targets = config.lora.rank, config.lora.alpha, config.lora.targets
  known = ('q', 'k', 'v', 'o', 'gate', 'up', 'down')
  if rank < 0 or alpha <= 0:
    raise ValueError(
      f'lora.rank={rank}, lora.alpha={alpha}: a rank is positive, or 0 for no adapters; alpha is '
      'positive'
    )
  if not targets or any(target not in known for target in targets):
    raise ValueError(f'lora.targets={targets}: some of {", ".join(known)}')
  if rank and not config.model.name and config.job == 'train':
    raise ValueError(
      f"lora.rank={rank} adapts a model that is there; with model.name='' nothing but the adapters "
      'of random weights would train. Name a model, or set lora.rank=0'
    )
  for pattern in config.train.frozen:
    try:
      re.compile(pattern)
    except re.error as error:
      raise ValueError(f'train.frozen: {pattern!r} is no regular expression: {error}') from error


def check_distill(config: Any) -> None:
  """What a way to distil needs, and what does nothing in it."""
  d = config.distill
  if d.method == 'sft' and d.teacher:
    raise ValueError(
      f"distill.teacher={d.teacher!r} does nothing with distill.method='sft', which learns from "
      "texts; take method 'logits' or 'on_policy', or leave the teacher out"
    )
  if d.method != 'sft' and not d.teacher:
    raise ValueError(
      f"distill.method={d.method!r} needs distill.teacher, a model with the student's tokenizer"
    )
  if d.method != 'on_policy':
    return
  if d.source:
    raise ValueError(
      f"distill.source={d.source!r}: distill.method='on_policy' learns from its own samples of the "
      'problems that are trained on; leave the source out'
    )
  if config.sampling.temperature != 1:
    raise ValueError(
      f'sampling.temperature={config.sampling.temperature}: the reverse KL of '
      "distill.method='on_policy' is that of temperature 1, where the samples have to come from"
    )


def check_export(config: Any) -> None:
  """That nothing lies where the export goes, and its dtype."""
  if config.to_dtype not in ('', 'float32', 'bfloat16'):
    raise ValueError(f"to_dtype={config.to_dtype!r}: must be float32, bfloat16 or '' (the run's)")
  to = pathlib.Path(config.to).expanduser()
  if config.to and to.exists() and (not to.is_dir() or any(to.iterdir())):
    raise ValueError(f'to={config.to!r} already exists and is not empty; choose another directory')


def check_served(config: Any) -> None:
  """What a server cannot do."""
  name = config.model.name
  if config.job not in ('sample', 'evaluate'):
    raise ValueError(
      f'model.name={name!r} is a server, which samples only: job={config.job} needs the weights; '
      'with job=sample its completions go into a store, which distillation takes as a teacher'
    )
  for key, value in (('environment', config.task.environment), ('extras', config.sampling.extras)):
    if value:
      group = 'task' if key == 'environment' else 'sampling'
      raise ValueError(
        f'{group}.{key}={value!r} is not to be had from a server ({name}): leave it out, or load '
        'the weights'
      )


def check_remote(config: Any, workdir: str) -> None:
  """That a job whose workdir lies in an object store keeps to what can be written there."""
  if not paths.is_remote(workdir):
    return
  way_out = 'give a local --workdir, or the directory where the bucket is mounted (gcsfuse)'
  if config.job not in ('train', 'distill', 'sample'):
    raise ValueError(
      f'--workdir={workdir}: job={config.job} writes into local directories only; {way_out}'
    )
  if config.job == 'train' and config.train.report:
    raise ValueError(
      f'--workdir={workdir}: train.report={config.train.report} writes a report, which is written '
      f'into local directories only; set train.report=0, or {way_out}'
    )
  if config.job == 'sample' and config.sampling.stop_after:
    raise ValueError(
      f'--workdir={workdir}: early stopping writes shards over, which is done in local directories '
      f'only; set sampling.first=0 and sampling.stop_after=0, or {way_out}'
    )


def check_score(config: Any) -> None:
  """That there is something to score, and that nothing of it is written over."""
  if not config.input or not config.output:
    return  # said when the job starts: a config without them is still sound
  given, out = (pathlib.Path(path).expanduser() for path in (config.input, config.output))
  if not given.exists():
    raise ValueError(f'input={config.input!r}: there is no such file or directory')
  if out.is_dir() or given.resolve() in (out.resolve(), *out.resolve().parents):
    raise ValueError(
      f'output={config.output!r} must be a new .jsonl file, neither the input nor inside of it'
    )
