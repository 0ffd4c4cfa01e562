"""Dense and staged rewards on problems that the base solves in none of 10,000 draws; on a CPU.

  python main.py --config=configs/study_grok.py --workdir=runs/study_grok
  python main.py --config=configs/study_grok.py --config.smoke --workdir=runs/grok_smoke

The base learns programs of one or two cases for a tiny machine (tasks/machines.py); RL trains on
programs of four. Arms, of five seeds each: the exact reward alone, the share of tests passed alone,
that share first and then the exact reward (also with replay; also with a curriculum from easier
problems; also in conversations, where the verifier names a case that fails), and the exact reward
with easier problems among the hard ones (also the easiest first). All take the same iterations. The
report has the share of seeds that grok, the time to it, and pass@1 on five splits;
docs/families.md has what was measured.
"""

from typing import Any

from configs import base, families

SEEDS = (1, 2, 3, 4, 5)
ITERATIONS = 120
STAGE = 40  # iterations of the dense reward, where the exact one follows
PROBLEMS = 64  # trained on; the base is drawn DRAWS times on each
DRAWS = 10_000
# no conversations in the corpus of the base: with some it solved 49 of 64 hard problems;
# one problem in a hundred is within reach of this base (chances of 0.27 and 1.5e-3): those two of
# the first are left out, so that what is left is a set of which it solves nothing
TASK = {
  **families.FAMILIES['machines']['task.params'], 'talk': 0.0, 'without': ('aEbTeDfD', 'aDcTeDfD'),
}  # fmt: skip
HARD = {'task.params': {**TASK, 'problems': PROBLEMS, 'train': 'hard'}}
# as many hard problems, and an easier one before each
LADDER = {'task.params': {**TASK, 'problems': 2 * PROBLEMS, 'train': 'ladder'}}
EXACT = {'reward.parts': {'exact': 1.0}}
REPLAY = {'train.replay': 256, 'train.offpolicy': 'seq_tis'}
CURRICULUM = {'train.curriculum': 'easy_to_hard'}
DENSE = {'reward.parts': {'correct': 1.0}}  # the share of tests passed
# the verifier in the loop: a wrong program is answered, three may be written (tasks/machines_turns)
TURNS = 3
LOOP = {'task.environment': 'machines_case', 'task.turns': TURNS}
TEXTS = {
  'What was done': (
    'A small model was trained from scratch on easy problems: programs of one or two cases for a '
    'tiny machine. RL then trained it on programs of four cases, which it does not solve in 10,000 '
    'draws each, by rewards that differ: 1 for a program that passes all tests and 0 for any other '
    '(exact), the share of tests passed (dense), or the second and then the first, alone, with '
    'right programs replayed, or with as many easier problems among the hard ones from then on, '
    'the easiest first; or by the exact one with those easier problems, in a random order or the '
    'easiest first. Iterations, completions and learning rate are those of every arm; where there '
    'are easier problems, they take draws from the hard ones. Replay begins with nothing: where '
    'no program is right it changes nothing.\n\n'
    'With the verifier in the loop a wrong program is answered by the letter of a case that fails, '
    f'and up to {TURNS} programs are written; the last one counts. Such a run samples more tokens. '
    'Its models are measured in single programs, as all others, and once more in conversations. '
    'The base has seen no conversation: what an answer means is learnt by RL.\n\n'
    f'Of the first hard problems {len(TASK["without"])} are left out, which this base solves with '
    'some chance; what it does on the others is in the section on staged rewards.\n\n'
    'Tests look at the cases of a program one by one, so that a program with some of its cases '
    'right earns some of the dense reward: a task on which a dense reward can help. Whether it '
    'does is measured, and says nothing of tasks where partial work earns nothing.'
  ),
}


def get_config(arg: str = ''):
  config = base.get_config()
  config.job = 'study'
  families.use(config, 'machines')
  config.task.name = 'machines_turns'  # the same problems
  config.task.params = base.dotted(TASK)
  # a prompt of a conversation holds two programs and what was said to them; max_tokens are those of
  # all programs of one
  config.sampling.update({'prompt_capacity': 72, 'max_tokens': 24 * TURNS, 'page': 16})
  config.train.update({'iterations': ITERATIONS, 'prompts': 32, 'group': 16})
  # the first held-out problems are hard ones
  config.train.update({'eval_every': 10, 'eval_problems': 40, 'eval_samples': 4})
  config.train.checkpoint_every = STAGE
  config.train.store_rollouts = False
  config.evaluate.update({'n': 64, 'headline_k': 16, 'problems': 200, 'bootstrap': 2000})
  del config.study.arms['rl']
  arms = _arms()
  config.study.arms.update(base.dotted(arms))
  config.study.run_arms = tuple(name for name in arms if not name.startswith('talk'))
  models = _models()
  config.study.models.update(base.dotted(models))
  config.study.title = 'Staged rewards on problems that the base does not solve'
  config.study.headline = 'dense-1'
  config.study.texts.update(TEXTS)
  for key, value in _smoke(arms).items():
    config.smoke_values[key] = base.dotted(value) if isinstance(value, dict) else value
  return base.with_presets(config, arg)


def _arms() -> dict[str, dict[str, Any]]:
  arms: dict[str, dict[str, Any]] = {
    'zero': {'job': 'sample', 'from': 'base', 'evaluate.n': DRAWS, 'evaluate.problems': PROBLEMS}
    | HARD
  }
  for seed in SEEDS:
    one = {**families.RL, 'seed': seed, 'part': 'staged'}
    arms[f'exact-{seed}'] = {**one, **HARD, **EXACT, 'label': 'exact only'}
    arms[f'dense-{seed}'] = {**one, **HARD, **DENSE, 'label': 'dense only'}
    arms[f'staged-{seed}'] = {
      **one, **HARD, **EXACT, 'label': 'dense, then exact',
      'from': f'dense-{seed}@step:{STAGE}', 'train.iterations': ITERATIONS - STAGE,
    }  # fmt: skip
    arms[f'replay-{seed}'] = {
      **one, **HARD, **EXACT, **REPLAY, 'label': 'dense, then exact + replay',
      'from': f'dense-{seed}@step:{STAGE}', 'train.iterations': ITERATIONS - STAGE,
    }  # fmt: skip
    arms[f'stepped-{seed}'] = {
      **one, **LADDER, **EXACT, **CURRICULUM, 'label': 'dense, then exact, easier ones first',
      'from': f'dense-{seed}@step:{STAGE}', 'train.iterations': ITERATIONS - STAGE,
    }  # fmt: skip
    arms[f'talk-{seed}'] = {**one, **HARD, **DENSE, **LOOP, 'train.iterations': STAGE}
    arms[f'loop-{seed}'] = {
      **one, **HARD, **EXACT, **LOOP, 'label': 'dense, then exact, verifier in the loop',
      'from': f'talk-{seed}', 'train.iterations': ITERATIONS - STAGE,
    }  # fmt: skip
    arms[f'ladder-{seed}'] = {**one, **LADDER, **EXACT, 'label': 'exact, easier ones among them'}
    arms[f'curriculum-{seed}'] = {
      **one, **LADDER, **EXACT, **CURRICULUM, 'label': 'exact, easier ones first'
    }  # fmt: skip
  return arms


def _models() -> dict[str, dict[str, Any]]:
  """The base and the loop arms, asked in conversations."""
  one = {'part': 'staged', **LOOP}
  found = {
    'base+case': {**one, 'path': 'arm:base', 'role': 'base', 'label': 'base, in conversations'}
  }
  for seed in SEEDS:
    found[f'loop-{seed}+case'] = {
      **one, 'path': f'arm:loop-{seed}', 'seed': seed,
      'label': 'verifier in the loop, in conversations',
    }  # fmt: skip
  return found


def _smoke(arms: dict[str, dict[str, Any]]) -> dict[str, Any]:
  kept = {name: dict(arm) for name, arm in arms.items() if name.endswith(('zero', '-1'))}
  for name, arm in kept.items():
    arm['task.params'] = {**arm['task.params'], 'held': 25}
    if name == 'zero':
      arm |= {'evaluate.n': 64, 'evaluate.problems': 8}
    elif name.startswith(('staged', 'replay', 'stepped')):
      arm |= {'from': f'dense-{name[-1]}@step:2', 'train.iterations': 2}
    elif name.startswith(('talk', 'loop')):
      arm |= {'train.iterations': 2}
  return {
    'study.arms': kept,
    'study.run_arms': tuple(name for name in kept if not name.startswith('talk')),
    'study.models': {
      name: one for name, one in _models().items() if '-' not in name or '-1' in name
    },
    'task.holdout': 25,
    'task.params.held': 25,
    'distill.steps': 30,
    'distill.eval_every': 0,
    'train.iterations': 4,
    'train.prompts': 8,
    'train.group': 4,
    'train.eval_every': 2,
    'train.eval_problems': 5,
    'evaluate.problems': 25,
    'evaluate.n': 16,
    'evaluate.headline_k': 4,
    'evaluate.bootstrap': 500,
    'sampling.slots': 128,
    'sampling.bank_rows': 64,
  }
