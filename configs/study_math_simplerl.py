"""A panel of figure 2 of arXiv 2504.13837 from released checkpoints: SimpleRL-Zoo on mathematics.

  python main.py --config=configs/study_math_simplerl.py:7b,aime24 --workdir=runs/simplerl_aime24

The argument: a size, 7b (the default), 14b, 32b or llama8b, and a benchmark, aime24 (the default),
amc23, math500, minerva, olympiadbench or gsm8k. Nothing is trained: base and RL model are sampled,
at temperature 0.6, top-p 0.95, at most 16,384 tokens, with the prompt of the RL training for both
(qwen-boxed), n times a problem as the paper did: 1,024 for AIME24 and AMC23, else 128 (1,024 also
for OlympiadBench with LLaMA). Its figure ends at k = n; here the headline is n/4, and beyond it the
line is dotted. 7b fits one GPU of 80 GB; 14b and 32b want two and four (--config.mesh.tensor).

Hub ids are those that the papers and their repositories name. They could not be fetched where this
was written: none of them has been tried here.
"""

from configs import base

# not reachable from the build machine, unverified: ids as the repositories name them
PAIRS = {
  '7b': ('Qwen/Qwen2.5-7B', 'hkust-nlp/Qwen-2.5-7B-SimpleRL-Zoo'),
  '14b': ('Qwen/Qwen2.5-14B', 'hkust-nlp/Qwen-2.5-14B-SimpleRL-Zoo'),
  '32b': ('Qwen/Qwen2.5-32B', 'hkust-nlp/Qwen-2.5-32B-SimpleRL-Zoo'),
  'llama8b': ('meta-llama/Llama-3.1-8B', 'hkust-nlp/Llama-3.1-8B-SimpleRL-Zoo'),
}
# n: the largest k of the paper's curves (appendix A.2)
MATHS = {
  'aime24': 1024, 'amc23': 1024, 'math500': 128, 'minerva': 128, 'olympiadbench': 128, 'gsm8k': 128,
}  # fmt: skip


def get_config(arg: str = ''):
  words, arg = choose(arg, (PAIRS, '7b'), (MATHS, 'aime24'))
  size, task = words
  base_id, rl_id = PAIRS[size]
  n = 1024 if (size, task) == ('llama8b', 'olympiadbench') else MATHS[task]
  config = released(
    base_id,
    {'simplerl_zoo': {'path': rl_id, 'role': 'rl', 'algorithm': 'grpo'}},
    task=task,
    template='qwen-boxed',
    n=n,
  )
  config.study.title = f'SimpleRL-Zoo {size} on {task}: figure 2'
  return base.with_presets(config, arg)


def choose(arg: str, *groups):
  """One word of each (names, default) out of a config's argument, and the rest of it."""
  chosen = []
  for names, default in groups:
    found = default
    for name in names:
      there, arg = base.take(arg, name)
      found = name if there else found
    chosen.append(found)
  return chosen, arg


def released(base_id: str, models, *, task: str, template: str, n: int, max_tokens: int = 16_384):
  """A study that only samples: a base and models released beside it, on one benchmark."""
  config = base.get_config()
  config.job = 'study'
  config.model.name = base_id
  config.model.compute_dtype = 'bfloat16'
  config.task.update({'name': task, 'template': template})
  config.study.run_arms = ()
  for name in list(config.study.arms):
    del config.study.arms[name]
  config.study.models.update(base.dotted(models))
  config.evaluate.update({'n': n, 'headline_k': n // 4, 'temperature': 0.6, 'top_p': 0.95})
  config.sampling.update({'slots': 512, 'bank_rows': 64, 'prompt_capacity': 1024, 'chunk': 64})
  config.sampling.update({'max_tokens': max_tokens, 'memory_gb': 44.0})
  config.train.micro_tokens = max(32_768, 2 * (1024 + max_tokens))
  config.verifier.workers = 16
  config.smoke_values.update(
    {
      'evaluate.n': 4,
      'evaluate.headline_k': 1,
      'evaluate.problems': 2,
      'sampling.max_tokens': 64,
      'sampling.slots': 8,
      'sampling.bank_rows': 8,
      'sampling.memory_gb': 0.0,
    }
  )
  return config
