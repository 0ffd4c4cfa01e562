"""Conversations: GRPO over many turns, and what they solve beside single completions at equal cost.

  python main.py --config=configs/study_turns.py --workdir=runs/study_turns

A small model is trained from scratch on conversations about "combine three numbers to reach a
target": expressions that miss, what is said to them, and one that (mostly) hits. From it GRPO in
single completions and in conversations of up to four answers, with credit per episode and per turn,
told the value of a wrong expression ('=14?') or only that it is wrong ('?'). All are then asked in
single completions and in conversations; the report sets them side by side at equal tokens.
docs/many_turns.md has the figures.
"""

from configs import base, quickstart

TURNS = 4
TALK = {'task.environment': 'countdown_value', 'task.turns': TURNS}
BLANK = {'task.environment': 'countdown_again', 'task.turns': TURNS}
PART = {'part': 'turns'}
# as many iterations as give single completions the tokens that conversations had in training
ITERATIONS, LONGER = 40, 150

TEXTS = {
  'What was done': (
    'A small model was trained from scratch on conversations: a problem, up to three expressions '
    'that miss the target and what is said to each, then one that hits (a share distill.noise: any '
    'at all). What is said is the value of the expression in half of them, "=14?", and only "?" in '
    'the others. GRPO went on from it: in single completions (single; single_long drew about as '
    'many tokens as the others), and in conversations of up to four answers with credit per '
    'episode (episode) or per turn (turn), told the value, or told nothing but to try again '
    '(blank, per turn).\n\n'
    'NAME+value and NAME+again are the same models asked in conversations. Only their tokens '
    'count as written; those of what they are told are counted apart, since they are read and not '
    'decoded.'
  ),
}


def get_config(arg: str = ''):
  config = quickstart.get_config()
  config.task.name = 'countdown_turns'
  config.distill.update({'steps': 500, 'batch': 160, 'eval_every': 0, 'checkpoint_every': 250})
  config.train.update({'iterations': ITERATIONS, 'prompts': 32, 'group': 16, 'eval_every': 0})
  config.train.checkpoint_every = 20
  # a prompt holds three answers and what was said to them; max_tokens are those of a conversation
  config.sampling.update({'slots': 512, 'bank_rows': 512, 'prompt_capacity': 72, 'page': 16})
  config.sampling.max_tokens = 48
  config.evaluate.update({'n': 128, 'headline_k': 32, 'problems': 100})

  rl = {
    'optimizer.learning_rate': 3e-4,
    'optimizer.schedule': 'constant',
    'optimizer.warmup_steps': 0,
  }
  turn = {'train.turn_credit': 'turn'}
  arms = {
    'single': {**rl, 'label': 'single completions'},
    'episode': {**rl, **TALK, **PART, 'label': 'value, per episode'},
    'turn': {**rl, **TALK, **PART, **turn, 'label': 'value, per turn'},
    'blank': {**rl, **BLANK, **PART, **turn, 'label': 'no information, per turn'},
    'single_long': {**rl, **PART, 'train.iterations': LONGER, 'label': 'as many tokens'},
  }
  config.study.arms = base.dotted(arms)
  config.study.run_arms = tuple(arms)
  asked = {f'{name}+value': TALK for name in ('base', 'single', 'single_long')}
  asked |= {f'{name}+value': TALK for name in ('episode', 'turn')}
  asked |= {f'{name}+again': BLANK for name in ('base', 'blank')}
  config.study.models = base.dotted(
    {
      name: {
        'path': f'arm:{name.partition("+")[0]}',
        'role': 'base' if name.startswith('base') else 'rl',
        'label': 'in conversation',
        **PART,
        **values,
      }
      for name, values in asked.items()
    }
  )
  config.study.headline = 'single'
  config.study.texts = base.dotted(TEXTS)
  smoke = {
    'distill.steps': 60,
    'train.iterations': 2,
    'train.prompts': 8,
    'train.group': 8,
    'study.arms': base.dotted(
      {**arms, 'single_long': {**arms['single_long'], 'train.iterations': 4}}
    ),
    'evaluate.problems': 24,
    'evaluate.n': 32,
    'evaluate.headline_k': 8,
    'evaluate.bootstrap': 500,
    'sampling.bank_rows': 256,
  }
  config.smoke_values.update(smoke)
  return base.with_presets(config, arg)
