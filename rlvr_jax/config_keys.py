"""Which values a key of the config may have, and the kinds of those that may be left open."""

import math

# cells of the algorithm's row, and others whose default None means "as it is": key -> type
OPEN: dict[str, type] = {
  **{
    f'train.{name}': str
    for name in (
      'credit', 'baseline', 'scale', 'per_token', 'ratio', 'old_policy', 'surrogate', 'offpolicy',
      'offpolicy_stat', 'token_select', 'aggregation', 'kl_in', 'kl_kind', 'learn_from', 'forms',
      'repeat_of', 'turn_credit',
    )
  },
  **{
    f'train.{name}': float
    for name in (
      'eps', 'gamma', 'lam', 'positive', 'negative', 'clip_low', 'clip_high', 'dual_clip',
      'ratio_cap', 'tau_positive', 'tau_negative', 'dro_beta', 'offpolicy_low', 'offpolicy_high',
      'select_share', 'select_low', 'select_high', 'select_coef', 'kl_coef', 'entropy_coef',
      'value_clip', 'value_coef', 'overlong_share', 'overlong_factor', 'rank_coef', 'focal',
      'repeat_coef', 'entropy_target', 'entropy_delta', 'entropy_most', 'turn_gamma',
    )
  },
  'train.pass_k': int,
  'train.ddof': int,
  'train.whiten': bool,
  'train.overlong_filter': bool,
  'train.band': tuple,
  'reward.truncated_score': float,
  'claims.temperature': float,
}  # fmt: skip

# names that tests hold against the tables of rl/parts.py and tasks/environments.py
PARTS = (
  'correct', 'exact', 'format', 'think_box', 'wrong', 'unparsed', 'timeout', 'error', 'truncated',
  'length', 'length_share', 'turns', 'environment',
)  # fmt: skip
ENVIRONMENTS = (
  'retry', 'feedback', 'calculator', 'python', 'countdown_value', 'countdown_again',
  'machines_case',
)  # fmt: skip


# Keys that came later, at the value that means what was before: no identity holds it, so that runs
# and stages made without the key go on.
ADDED = {
  'distill.author': '',
  'distill.correct_only': True,
  'distill.method': 'sft',
  'distill.most': 0,
  'distill.teacher': '',
  'mesh.auto': False,
  'model.attention_impl': 'auto',
  'model.init.vision.embed_dim': 64,
  'model.init.vision.full_layers': [1],
  'model.init.vision.mlp_dim': 128,
  'model.init.vision.num_heads': 4,
  'model.init.vision.num_layers': 2,
  'model.init.vision.patch': 14,
  'model.init.vision.window': 56,
  'model.max_pixels': 0,
  'model.min_pixels': 0,
  'reward.parts': {'correct': 1.0},
  'sampling.tensor': 0,
  'task.allow': [],
  'task.environment': '',
  'task.fields.images': '',
  'task.module': '',
  'task.self_check': 'auto',
  'task.split': '',
  'task.turns': 4,
  'task.where': '',
  'train.base_share': 0.0,
  'train.curriculum': 'none',
  'train.curriculum_band': [0.1, 0.9],
  'train.entropy_delta': None,
  'train.entropy_most': None,
  'train.entropy_target': None,
  'train.explore': 0.25,
  'train.focal': None,
  'train.forms': None,
  'train.keep_every': 0,
  'train.learn_from': None,
  'train.rank_coef': None,
  'train.repeat_coef': None,
  'train.repeat_of': None,
  'train.replay': 0,
  'train.replay_rate': 0.25,
  'train.reset_every': 0,
  'train.tokens': 0,
  'train.turn_credit': None,
  'train.turn_gamma': None,
}


def _positive(x) -> bool:
  return x > 0 and math.isfinite(x)


def _not_negative(x) -> bool:
  return x >= 0 and math.isfinite(x)


def _one_of(*names: str):
  return lambda x: x in names, f'must be one of {", ".join(names)}'


_POSITIVE = (_positive, 'must be a positive number')
_NOT_NEGATIVE = (_not_negative, 'must be a number and not below 0')
_AXIS = (lambda x: x == -1 or x > 0, 'a mesh axis is a positive number of devices, or -1: the rest')
_SHARE = (lambda x: 0 < x <= 1, 'must be above 0 and at most 1')
_FLOAT_TYPE = _one_of('float32', 'bfloat16')
RULES = {
  'model.dtype': _FLOAT_TYPE,
  'model.attention_impl': _one_of('auto', 'einsum', 'cudnn'),
  'model.compute_dtype': _FLOAT_TYPE,
  'model.logprob_chunk': _POSITIVE,
  'model.remat': _one_of('none', 'dots', 'block'),
  'mesh.data': _AXIS,
  'mesh.fsdp': _AXIS,
  'mesh.tensor': _AXIS,
  'sampling.tensor': _NOT_NEGATIVE,
  'task.limit': _NOT_NEGATIVE,
  'task.holdout': _NOT_NEGATIVE,
  'task.turns': _POSITIVE,
  'sampling.temperature': _NOT_NEGATIVE,
  'sampling.top_p': _SHARE,
  'sampling.top_k': _NOT_NEGATIVE,
  'sampling.max_tokens': _POSITIVE,
  'sampling.slots': _POSITIVE,
  'sampling.bank_rows': _POSITIVE,
  'sampling.prompt_capacity': _POSITIVE,
  'sampling.chunk': _POSITIVE,
  'sampling.decode_impl': _one_of('auto', 'xla_paged', 'tokamax_rpa', 'pallas_gpu'),
  'sampling.first': _NOT_NEGATIVE,
  'sampling.stop_after': _NOT_NEGATIVE,
  'sampling.coupling': _one_of('independent', 'common'),
  'train.iterations': _POSITIVE,
  'train.tokens': _NOT_NEGATIVE,
  'train.base_share': (lambda x: 0 <= x <= 1, 'is a share: from 0 to 1'),
  'train.replay': _NOT_NEGATIVE,
  'train.replay_rate': (lambda x: 0 <= x <= 1, 'is a solve rate: from 0 to 1'),
  'train.curriculum': _one_of('none', 'band', 'easy_to_hard'),
  'train.explore': _SHARE,
  'train.reset_every': _NOT_NEGATIVE,
  'train.eval_samples': _POSITIVE,
  'train.eval_problems': _NOT_NEGATIVE,
  'train.prompts': _POSITIVE,
  'train.group': _POSITIVE,
  'train.minibatch': _NOT_NEGATIVE,
  'train.micro_tokens': _POSITIVE,
  'train.epochs': _POSITIVE,
  'train.most_draws': _POSITIVE,
  'train.report': _NOT_NEGATIVE,
  'reward.control': _one_of('none', 'random', 'format', 'inverted', 'majority'),
  'critic.learning_rate': _NOT_NEGATIVE,
  'train.keep': _POSITIVE,
  'train.keep_every': _NOT_NEGATIVE,
  'metrics.peak_flops': _NOT_NEGATIVE,
  'watch.hang_seconds': _NOT_NEGATIVE,
  'watch.grace_seconds': _NOT_NEGATIVE,
  'benchmark.seeds': _POSITIVE,
  'benchmark.tokens': _POSITIVE,
  'benchmark.k': _POSITIVE,
  'benchmark.margin': (lambda x: 0 < x < 1, 'is a share of problems: between 0 and 1'),
  'hosts.count': _NOT_NEGATIVE,
  'hosts.wait_s': _POSITIVE,
  'hosts.silent_s': _POSITIVE,
  'hosts.barrier_s': _POSITIVE,
  'train.checkpoint_every': _POSITIVE,
  'train.eval_every': _NOT_NEGATIVE,
  'optimizer.learning_rate': _NOT_NEGATIVE,
  'optimizer.warmup_steps': _NOT_NEGATIVE,
  'optimizer.schedule': _one_of('constant', 'cosine', 'linear'),
  'optimizer.b1': (lambda x: 0 <= x < 1, 'must be at least 0 and below 1'),
  'optimizer.b2': (lambda x: 0 <= x < 1, 'must be at least 0 and below 1'),
  'optimizer.eps': _POSITIVE,
  'optimizer.weight_decay': _NOT_NEGATIVE,
  'optimizer.clip_norm': _NOT_NEGATIVE,
  'optimizer.moment_dtype': _FLOAT_TYPE,
  'optimizer.second_moment_dtype': _FLOAT_TYPE,
  'optimizer.rounding': _one_of('nearest', 'stochastic'),
  'distill.steps': _POSITIVE,
  'distill.batch': _POSITIVE,
  'distill.learning_rate': _NOT_NEGATIVE,
  'distill.method': _one_of('sft', 'logits', 'on_policy'),
  'distill.most': _NOT_NEGATIVE,
  'distill.noise': (lambda x: 0 <= x <= 1, 'is a share: from 0 to 1'),
  'distill.checkpoint_every': _POSITIVE,
  'task.self_check': _one_of('auto', 'refuse', 'drop', 'off'),
  'cot.problems': _POSITIVE,
  'cot.completions': _POSITIVE,
  'data.ngram': _POSITIVE,
  'data.probe': _NOT_NEGATIVE,
  'data.shown': (lambda x: 0 < x < 1, 'is a share of a question: between 0 and 1'),
  'evaluate.n': _POSITIVE,
  'evaluate.headline_k': _NOT_NEGATIVE,
  'evaluate.problems': _NOT_NEGATIVE,
  'evaluate.confidence': (lambda x: 0 < x < 1, 'must be between 0 and 1, as 0.95'),
  'evaluate.bootstrap': _POSITIVE,
  'evaluate.temperature': _NOT_NEGATIVE,
  'evaluate.top_p': _SHARE,
  'evaluate.top_k': _NOT_NEGATIVE,
  'evaluate.flush_s': _POSITIVE,
  'claims.k': _NOT_NEGATIVE,
  'claims.sharpen': _NOT_NEGATIVE,
  'claims.shrink': _NOT_NEGATIVE,
  'claims.reach': (lambda x: 0 < x < 1, 'is a share: between 0 and 1'),
  'claims.expand': _NOT_NEGATIVE,
  'claims.alike': _POSITIVE,
  'claims.gap': _NOT_NEGATIVE,
  'score.examples': _NOT_NEGATIVE,
  'perplexity.problems': _NOT_NEGATIVE,
  'perplexity.samples': _NOT_NEGATIVE,
  'perplexity.correct': _NOT_NEGATIVE,
  'perplexity.importance': _POSITIVE,
  'perplexity.calibration': _NOT_NEGATIVE,
  'perplexity.shown': _NOT_NEGATIVE,
  'perplexity.micro_tokens': _POSITIVE,
  'compare.samples': _NOT_NEGATIVE,
  'plan.prompt_tokens': _NOT_NEGATIVE,
  'plan.completion_tokens': _NOT_NEGATIVE,
  'plan.images': _NOT_NEGATIVE,
  'plan.image_tokens': _NOT_NEGATIVE,
  'plan.hbm_gb': _NOT_NEGATIVE,
  'server.concurrency': _POSITIVE,
  'server.n': _POSITIVE,
  'server.timeout_s': _POSITIVE,
  'server.retries': _NOT_NEGATIVE,
  'server.backoff_s': _NOT_NEGATIVE,
  'verifier.workers': _POSITIVE,
  'verifier.limit_s': _POSITIVE,
  'verifier.memory_mb': _POSITIVE,
  'verifier.sandbox': _one_of('landlock+seccomp', 'seccomp', 'rlimits'),
}
