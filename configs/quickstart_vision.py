"""The quickstart's study on pictures: a small vision-language model from scratch, GRPO, report.

  python main.py --config=configs/quickstart_vision.py --workdir=runs/quickstart_vision

A model of Qwen2.5-VL's architecture is trained from scratch to read small pictures (how many dots,
how wide an angle, where a point is; rlvr_jax/tasks/shapes.py draws them) on answers of which a
share are guesses, then by GRPO with a true verifier. Base and RL are sampled on pictures that no
training saw; the report's browser shows each beside its completions.
"""

from configs import base, quickstart

TEXTS = {
  'What was done': (
    "A small model of Qwen2.5-VL's architecture was trained from scratch to read pictures of 56 x "
    '56 pixels: how many dots, how wide an angle, where a point. A share of the answers it learnt '
    'from (distill.noise) were guesses among all answers of their kind. GRPO with a true verifier '
    'then trained it further. Both were sampled on pictures that no training saw. The question is '
    'that of arXiv 2504.13837 on vision: does RL solve what the base cannot, or find sooner what '
    'the base finds with more tries?'
  ),
  'What makes the effect': (
    'Every picture has one right answer among 5 to 16. A base that guesses among them finds almost '
    'everything with enough tries, so that pass@k of the base rises to nearly 1 by its own doing, '
    'and a policy that commits can only lose there. That this shows here says nothing of how often '
    'it shows elsewhere.'
  ),
}


def get_config(arg: str = ''):
  config = quickstart.get_config()
  config.task.name = 'shapes'
  config.task.holdout = 200
  for name in list(config.task.params):
    del config.task.params[name]
  config.task.params.update({'problems': 6000, 'seed': 1, 'size': 56})
  config.model.init.update({'architecture': 'qwen2_5_vl', 'embed_dim': 64, 'mlp_dim': 160})
  config.model.init.update({'num_layers': 2, 'num_heads': 4, 'num_kv_heads': 2, 'head_dim': 16})
  config.model.init.vision.update({'embed_dim': 64, 'mlp_dim': 128, 'num_layers': 2})

  # the base: supervised on the task's corpus, of which 40% are guesses
  config.distill.update({'steps': 800, 'batch': 64, 'learning_rate': 1e-3, 'noise': 0.4})
  config.distill.eval_every = 200
  config.distill.checkpoint_every = 400
  config.train.update({'iterations': 40, 'prompts': 32, 'group': 16})
  config.train.checkpoint_every = 20
  config.study.run_arms = ('rl',)
  for heading in list(config.study.texts):
    del config.study.texts[heading]
  config.study.texts.update(TEXTS)
  config.sampling.update({'slots': 512, 'bank_rows': 128, 'prompt_capacity': 16, 'chunk': 8})
  config.sampling.max_tokens = 8
  config.evaluate.update({'n': 256, 'headline_k': 64, 'problems': 200})
  config.smoke_values.update({'distill.batch': 32, 'task.params.problems': 400})
  return base.with_presets(config, arg)
