"""A sampling run that is killed with kill -9 ends with exactly the rows of an undisturbed one."""

import json
import pathlib

import pytest
import sampling_runs as runs

from rlvr_jax.models.load import models_dir

MODEL = models_dir() / 'smollm2-135m.gguf'
FUNCTIONS = runs.ROOT / 'tests' / 'data' / 'functions.jsonl'
API = """
import rlvr_jax
drawn = rlvr_jax.sample(
  {model!r}, {path!r}, 48, max_tokens=12, first=8, stop_after=2, slots=8, prompt_capacity=32,
  chunk=4, page=16, verifier={verifier!r}, workdir={workdir!r}, flush_s=0.1,
)
print(len(drawn))
"""


def test_kill_9_leaves_the_rows_of_an_undisturbed_run(tmp_path):
  """Early stopping on; rlvr_jax.sample makes the undisturbed run, main.py the killed one."""
  model = runs.save_tiny_model(tmp_path / 'model')
  path = tmp_path / 'problems.jsonl'
  answers = ('ab', 'c', 'jjjj')  # solved now and then, mostly, never
  path.write_text(''.join(json.dumps({'question': f'a+{a}?', 'answer': a}) + '\n' for a in answers))
  verifier, cache = f'{runs.CHECK}:slow_check', tmp_path / 'cache'
  words = API.format(
    model=str(model), path=str(path), verifier=verifier, workdir=str(tmp_path / 'whole')
  )
  whole = runs.start(['-c', words], cache)
  command = runs.job(
    tmp_path / 'killed',
    model__name=model,
    task__path=path,
    task__verifier=verifier,
    evaluate__n=48,
    evaluate__flush_s=0.1,
    sampling__max_tokens=12,
    sampling__first=8,
    sampling__stop_after=2,
    sampling__slots=8,
    sampling__prompt_capacity=32,
    sampling__chunk=4,
    sampling__page=16,
  )
  runs.kill_in_the_middle(runs.start(command, cache), tmp_path / 'killed', 2)
  first = runs.rows(tmp_path / 'killed')
  text = runs.finish(runs.start(command, cache), 120)
  printed = runs.finish(whole, 120)
  expected = runs.rows(tmp_path / 'whole')
  assert 0 < len(first) < len(expected) < 3 * 48
  assert runs.rows(tmp_path / 'killed') == expected
  assert f'\n{len(expected)}\n' in printed
  assert 'problems stopped before 48' in text


@pytest.mark.check
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not MODEL.exists(), reason=f'{MODEL} is missing')
def test_long_run_of_a_real_model_survives_two_kills(tmp_path):
  """20 function prompts x 200 completions of SmolLM2-135M, minutes a run."""

  def command(workdir: pathlib.Path) -> list[str]:
    return runs.job(
      workdir,
      model__name=MODEL,
      task__path=FUNCTIONS,
      task__verifier=f'{runs.CHECK}:check',
      evaluate__n=200,
      evaluate__flush_s=20,
      sampling__max_tokens=40,
      sampling__slots=64,
      sampling__bank_rows=20,
      sampling__prompt_capacity=64,
      sampling__chunk=20,
    )

  cache, killed, whole = (tmp_path / name for name in ('cache', 'killed', 'whole'))
  for _ in range(2):
    runs.kill_in_the_middle(runs.start(command(killed), cache), killed, 2)
  partial = len(runs.rows(killed))
  runs.finish(runs.start(command(killed), cache), 3000)
  runs.finish(runs.start(command(whole), cache), 3000)
  assert 0 < partial < 20 * 200
  assert len(runs.rows(whole)) == 20 * 200
  assert runs.rows(killed) == runs.rows(whole)
