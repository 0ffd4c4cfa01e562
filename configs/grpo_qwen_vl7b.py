"""GRPO of Qwen2.5-VL-7B on Geometry3K by EasyR1's recipe (examples/config.yaml of its repository).

  python main.py --config=configs/grpo_qwen_vl7b.py --workdir=runs/grpo_qwen_vl7b
  python main.py --config=configs/grpo_qwen_vl7b.py --config.task.path=geometry3k
  python main.py --config=configs/grpo_qwen_vl7b.py:1gpu

512 prompts x 5 completions, 4 optimizer steps of 128 prompts each, learning rate 1e-6, weight decay
0.01, KL 1e-2 in the loss (its k3, whose gradient is biased; ours is k2's through k3_st), clip 0.2,
temperature 1 (it cuts the nucleus at 0.99; learning needs top-p 1, docs/algorithms.md), prompts and
completions of at most 2048 tokens, images of 262,144 to 4,194,304 pixels, the tower trained too, 15
passes over 2,101 problems. Reward: 0.9 for a right answer (EasyR1's judge is MathRuler, ours the
strict verifier) and 0.1 for its format, <think> ... </think> and a box. The prompt is the one that
the paper's models saw, of March 2025; EasyR1's form since is --config.task.template=easyr1-user.
task.path: its files, where they are not to be fetched.

:1gpu is the same on one GPU of 80 GB: adapters of rank 32 over the decoder's frozen bfloat16
weights, the tower as it is, an eighth of the prompts, 10 times the learning rate (all ours).

As it is, it fits 64 chips of TPU v5e (16 GB each), with images as large as a prompt holds
(docs/plan.md).
"""

from configs import base


def get_config(arg: str = ''):
  one_gpu, arg = base.take(arg, '1gpu')
  config = base.get_config()
  config.job = 'train'
  config.model.name = 'Qwen/Qwen2.5-VL-7B-Instruct'
  config.model.compute_dtype = 'bfloat16'
  config.model.update({'min_pixels': 262_144, 'max_pixels': 4_194_304})  # 334 to 5,350 tokens
  config.task.update({'name': 'geometry3k', 'template': 'easyr1'})
  config.mesh.update({'data': 1, 'fsdp': -1, 'tensor': 2})
  config.sampling.tensor = 4  # devices that share the sampler's weights; each has the tower
  config.optimizer.learning_rate = 1e-6
  config.optimizer.weight_decay = 0.01
  config.train.update({'iterations': 60, 'prompts': 512, 'group': 5, 'minibatch': 128})
  config.train.update({'micro_tokens': 16_384, 'kl_coef': 1e-2, 'kl_kind': 'k3_st'})
  config.train.update({'eval_every': 5, 'eval_problems': 128, 'eval_samples': 4})
  config.train.update({'checkpoint_every': 5, 'keep': 3})
  config.reward.parts.update({'correct': 0.9, 'think_box': 0.1})
  config.sampling.update({'slots': 512, 'bank_rows': 128, 'prompt_capacity': 2048, 'chunk': 64})
  config.sampling.max_tokens = 2048
  config.sampling.update({'memory_gb': 12.0, 'release': True})
  config.verifier.workers = 16
  if one_gpu:
    base.low_rank(config, rank=32, learning_rate=1e-5)
    config.mesh.tensor, config.sampling.tensor = 1, 0
    config.train.update({'prompts': 64, 'minibatch': 16})
    config.sampling.update({'slots': 128, 'bank_rows': 64, 'memory_gb': 40.0})
  config.smoke_values.update(
    {
      'train.iterations': 1,
      'train.prompts': 4,
      'train.group': 2,
      'train.minibatch': 2,
      'train.eval_problems': 2,
      'sampling.slots': 16,
      'sampling.bank_rows': 8,
      'sampling.max_tokens': 64,
      'sampling.memory_gb': 0.0,
      'sampling.tensor': 0,
      'mesh.tensor': 1,
    }
  )
  return base.with_presets(config, arg)
