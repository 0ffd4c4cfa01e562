"""The whole analysis of arXiv 2504.13837 on the quickstart's family; offline, on a laptop's CPU.

  python main.py --config=configs/study_quickstart.py --workdir=runs/study_quickstart
  python main.py --config=configs/study_quickstart.py --config.smoke --workdir=runs/study_smoke

One base model, then from it: six algorithms with three training seeds each, checkpoints of a run,
KL and group size (one seed, marked), a coin in place of the verifier, a larger teacher and students
of it in three ways, RL from the student, RL from earlier checkpoints of the base; temperatures, the
temperature of equal entropy, perplexity and reach. Killed, the same command goes on.
docs/studies.md has its minutes, stage by stage. The smoke form runs every kind of stage once, at
tiny sizes.
"""

from configs import base, quickstart

NAMES = ('ppo', 'grpo', 'reinforce_pp', 'rloo', 'remax', 'dapo')
SEEDS = (1, 2, 3)
RL = {
  'optimizer.schedule': 'constant',
  'optimizer.warmup_steps': 0,
  'optimizer.learning_rate': 3e-4,
}
ONE = {**RL, 'train.algorithm': 'grpo', 'seed': 1}  # what the ablations vary
TEACHER = {
  'model.init.embed_dim': 160,
  'model.init.mlp_dim': 448,
  'model.init.num_layers': 4,
  'model.init.head_dim': 40,
  'distill.steps': 1000,
  'distill.noise': 0.0,
}
STUDENT = {'job': 'distill', 'part': 'distillation', 'distill.steps': 300, 'seed': 1}
STUDENT = {**STUDENT, 'distill.learning_rate': 5e-4}
TEXTS = {
  'What was done': (
    "A small base model was trained on the quickstart's task; a share of its corpus are "
    'expressions that miss the target. Six algorithms of RL trained it further, each with three '
    'seeds: the same problems in an order of their own, the same iterations, completions, steps '
    'and learning rate. Ablations, students and RL from other starts have one seed each, and '
    'stand for themselves alone.\n\n'
    'A completion is a bare expression, so that every correct one is known and exact pass@k can be '
    'drawn through the sampled one. The task was chosen because the effect shows on it within '
    'minutes; how often it shows elsewhere it does not say.'
  ),
}


def get_config(arg: str = ''):
  config = quickstart.get_config()
  config.critic.learning_rate = 1e-3
  config.train.eval_every = 25
  for group in (config.study.arms, config.study.texts):
    for name in list(group):
      del group[name]
  arms = _arms()
  config.study.arms.update(base.dotted(arms))
  config.study.run_arms = tuple(arms)
  config.study.texts.update(TEXTS)
  config.study.title = 'The reasoning boundary of a small model'
  config.study.headline = 'grpo-1'
  config.study.measure_base = ('10%', '30%')
  config.study.swept = ('base', 'grpo-1')
  config.study.temperatures = (0.6, 1.4)
  config.study.matched = ('grpo-1',)
  config.study.perplexity = ('base', 'grpo-1', 'student', 'teacher')
  for key, value in _smoke(arms).items():
    config.smoke_values[key] = base.dotted(value) if isinstance(value, dict) else value
  return base.with_presets(config, arg)


def _arms():
  arms = {
    f'{name}-{seed}': {**RL, 'train.algorithm': name, 'seed': seed, 'part': 'algorithms'}
    for name in NAMES
    for seed in SEEDS
  }
  arms['grpo-1']['measure'] = ('10%', '20%', '40%', '70%')
  for coefficient in (0.01, 0.1):
    values = {'train.kl_coef': coefficient, 'train.kl_kind': 'k3_st'}
    arms[f'kl-{coefficient:g}'] = {
      **ONE, **values, 'part': 'kl', 'label': f'KL {coefficient:g}'
    }  # fmt: skip
  for size in (4, 8, 32):
    arms[f'group-{size}'] = {
      **ONE, 'train.group': size, 'part': 'group', 'label': f'groups of {size}'
    }  # fmt: skip
  for seed in SEEDS:
    arms[f'random-{seed}'] = {
      **ONE, 'seed': seed, 'reward.control': 'random', 'part': 'control', 'label': 'a coin'
    }  # fmt: skip
  arms['teacher'] = {
    'job': 'distill', 'from': 'scratch', 'role': 'teacher', 'part': 'distillation',
    'label': 'teacher', **TEACHER,
  }  # fmt: skip
  arms['teacher_samples'] = {
    'job': 'sample',
    'from': 'teacher',
    'evaluate.n': 8,
    'evaluate.problems': 0,
  }
  texts = {'distill.source': 'arm:teacher_samples', 'distill.most': 4}
  teacher = {'distill.teacher': 'arm:teacher'}
  arms['student'] = {**STUDENT, **texts, 'label': "on the teacher's texts"}
  arms['student_logits'] = {
    **STUDENT, **texts, **teacher, 'distill.method': 'logits',
    'label': "on the teacher's distributions",
  }  # fmt: skip
  arms['student_on_policy'] = {
    **STUDENT,
    **teacher,
    'distill.method': 'on_policy',
    'label': 'on its own samples',
  }
  arms['student_rl'] = {
    **ONE,
    'from': 'student',
    'part': 'distillation',
    'label': 'RL from student',
  }
  for share in (0, 10, 30):
    arms[f'prior-{share}'] = {
      **ONE, 'from': f'base@{share}%', 'part': 'prior', 'label': f'RL from {share}% of the base'
    }  # fmt: skip
  return arms


def _smoke(arms):
  left_out = ('-2', '-3', 'kl-0.01', 'group-4', 'group-32', 'prior-30')
  kept = {name: values for name, values in arms.items() if not name.endswith(left_out)}
  for name in ('teacher', 'student', 'student_logits', 'student_on_policy'):
    kept[name] = {**kept[name], 'distill.steps': 60 if name == 'teacher' else 10}
  kept['teacher_samples'] = {**kept['teacher_samples'], 'evaluate.n': 2}
  return {
    'study.arms': kept,
    'study.run_arms': tuple(kept),
    'study.temperatures': (1.4,),
    'study.match.problems': 16,
    'study.match.tolerance': 0.2,
    'study.measure_base': ('10%',),
    'perplexity.correct': 8,
    'perplexity.importance': 32,
    'train.group': 4,
    'train.eval_every': 0,
    'distill.eval_every': 0,
    'evaluate.bootstrap': 500,
    'task.params.problems': 400,
    'task.params.largest': 9,
  }
