"""Every key of every run, once, with its unit. Other configs start from get_config() and set few.

It needs ml_collections only, no jax. A key that is misspelt here or on the command line is refused.

  config = base.get_config()
  config.train.group = 16                                     # a value of this config
  config.smoke_values.update({'train.iterations': 2})         # applied when --config.smoke is given
  config.study.arms = base.dotted({'rl': {}, 'rl_slow': {'optimizer.learning_rate': 1e-4}})
  return base.with_presets(config, arg)                       # configs/x.py:clip_higher,runlocal
"""

import functools
import re
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.boundary import boundary
from configs.operations import operations
from configs.planning import planning
from configs.processes import processes
from configs.training import reward, train
from rlvr_jax import config as config_lib
from rlvr_jax.config import Config, dotted


def get_config(arg: str = '') -> Config:
  """The whole config with its defaults, locked: only the groups of config.FREE_GROUPS grow."""
  config = _every_key()
  config.lock()
  for group in config_lib.FREE_GROUPS:
    functools.reduce(getattr, group.split('.'), config).unlock()
  return with_presets(config, arg)


def _every_key() -> Config:
  return ConfigDict(
    {
      'job': 'train',  # one of rlvr_jax.config.JOBS
      'name': '',  # shown in reports; '' takes the config's file name
      'seed': 0,  # of initialisation, data order and every drawn token
      'dry_run': False,  # stop after the checks; a job that samples: after its 1% pilot
      'smoke': False,  # apply smoke_values: the same code path, minutes instead of hours
      'smoke_values': dotted({}),  # dotted key -> value
      **boundary(),  # full and benchmark: configs/boundary.py
      'run': '',  # job=export: what is exported, a run (runs/x@step:300) or any other model
      'to': '',  # the directory that it becomes
      'to_dtype': '',  # of its weights; '': the run's own, float32 for merged adapters
      'adapter': False,  # of a run with adapters: these alone, as PEFT has them
      # job=score: completions, a .jsonl(.gz) file, a run or a store of samples; job=cot: a run
      'input': '',
      'output': '',  # the .jsonl that gets them with new verdicts; OUTPUT.flips.json what changed
      'score': _score(),
      'stores': '',  # whose completions: runs, stores, files; PATH or NAME=PATH, commas between
      'perplexity': _perplexity(),
      'compare': _compare(),
      **planning(),  # power and plan: configs/planning.py
      'server': _server(),
      'model': _model(),
      'lora': {
        'rank': 0,  # of the adapters that train in place of the weights (models/lora.py); 0: none
        'alpha': 32.0,  # their product is multiplied by alpha / rank
        'targets': ('q', 'k', 'v', 'o', 'gate', 'up', 'down'),  # projections that have one
      },
      'mesh': {'data': 1, 'fsdp': -1, 'tensor': 1, 'auto': False},  # -1: the rest; docs/meshes.md
      'task': _task(),
      'sampling': _sampling(),
      'train': train(),  # configs/training.py
      'reward': reward(),
      'critic': {'learning_rate': 1e-5},  # of PPO's value function; the rest is optimizer.*
      'optimizer': _optimizer(),
      'distill': _distill(),
      'evaluate': _evaluate(),
      'claims': _claims(),
      'data': _data(),
      'cot': _cot(),
      'verifier': {
        'workers': 2,  # processes
        # wall-clock seconds for one verdict, then it is 'timeout'; for one run of a program it is
        # seconds of CPU, and twice as many by the clock
        'limit_s': 10.0,
        'memory_mb': 4096,  # MiB of address space for one worker, and for one program
        'sandbox': 'landlock+seccomp',  # what programs need: this | seccomp | rlimits
        'allow_unsafe': False,  # run programs below that level all the same
      },
      'study': {
        'title': '',  # of the report
        'texts': dotted({}),  # heading -> text that the report says first
        'run_arms': ('rl',),  # names of study.arms to run, in this order
        'arms': dotted({'rl': {}}),  # arm -> {dotted key: value}, on top of this config
        **_study(),
      },
      **operations(),  # metrics, profile and watch: configs/operations.py
      **processes(),  # hosts: configs/processes.py
    }
  )


def _study() -> dict[str, Any]:
  return {  # beside its arms (rlvr_jax/stages.py)
    # name -> a model that is only sampled: its path or hub id, or {path, role, template, ...}
    'models': dotted({}),
    'headline': '',  # the model set against the base; '': the first that is trained
    'measure_base': (),  # steps of the base's own training whose checkpoints are measured too
    'swept': (),  # models sampled at study.temperatures too
    'temperatures': (),
    'matched': (),  # models sampled also at the temperature that gives them the base's entropy
    'match': {  # the search for it
      'problems': 64,  # the first held-out ones; 0: all
      'samples': 4,  # completions of each at a new temperature; of the base 8 times as many
      'low': 0.2,
      'high': 3.0,
      'tolerance': 0.02,  # of temperature
    },
    'perplexity': (),  # models that score one another's completions, the base first; (): none
  }


def _model() -> dict[str, Any]:
  return {
    'name': '',  # HF directory, .gguf file, hub id, or a run: runs/x, runs/x@step:300,
    # runs/x@best; or http://host:port/v1#NAME (to sample); '' makes one from `init`
    'dtype': 'float32',  # of the parameters: float32 | bfloat16
    'compute_dtype': 'float32',  # of the forward pass, in learner and sampler alike
    'attention_impl': 'auto',  # of learner and prefill: auto | einsum | cudnn (GPU, bfloat16)
    'remat': 'block',  # kept for the backward pass: none (all is) | dots (products with weights
    # are) | block (a layer's input is: least memory, a third more FLOPs)
    'logprob_chunk': 1024,  # tokens whose logits exist at once
    'init': {  # a model from scratch, for quickstarts and tests
      'architecture': 'qwen2',  # qwen2 | qwen3 | llama | qwen2_5_vl
      'vocab_size': 0,  # tokens; 0: as many as the tokenizer has
      'embed_dim': 128,
      'mlp_dim': 384,
      'num_layers': 4,
      'num_heads': 4,
      'num_kv_heads': 2,
      'head_dim': 32,
      'vision': {  # the tower of a qwen2_5_vl; patch and window: sides in pixels
        'embed_dim': 64,
        'mlp_dim': 128,
        'num_layers': 2,
        'num_heads': 4,
        'full_layers': (1,),  # attend to the whole image, the others to their window
        'patch': 14,
        'window': 56,
      },
    },
    'min_pixels': 0,  # of an image after resizing, for models that see; 0: the model's own
    'max_pixels': 0,
  }


def _task() -> dict[str, Any]:
  return {
    'name': 'countdown',  # a benchmark (docs/datasets.md) | jsonl | parquet | countdown | ...
    'path': '',  # file of the problems; of a benchmark: file or folder, '': from its public home
    'split': '',  # of a benchmark; '': trains on its train split, holds out its test split
    'fields': {'id': '', 'prompt': '', 'answer': '', 'images': ''},  # columns; '': looked for
    'params': {},  # of a procedural task; its own page of the docs lists them
    'where': '',  # of a benchmark: which problems, as 'level=4,5' or 'since=2024-08-01; until='
    'limit': 0,  # problems used, from the first; 0: all
    'holdout': 0,  # problems kept from training, for evaluation
    'template': 'raw',  # prompt template: raw | chat | qwen-boxed | ...
    'module': '',  # a Python file with problems(params), and perhaps verify, prompt, environment
    'environment': '',  # answers completions: retry | feedback | python | ... | file.py:name
    'turns': 4,  # completions in a conversation, at most, where an environment answers
    'verifier': '',  # '' is the task's own; or math | paper | ... | path/to/file.py:function
    'self_check': 'auto',  # golds that do not verify: refuse | drop | off; auto: refuse, maths only
    'allow': (),  # ids of problems that are kept although their gold does not verify
  }


def _score() -> dict[str, Any]:
  return {
    # the file's column names; '': looked for. prediction may hold a list of completions; verdict
    # is the one to compare with (a name, true or false)
    'fields': {'id': '', 'task': '', 'gold': '', 'prediction': '', 'verdict': ''},
    'model': '',  # of the store; '': its only one
    'task': '',  # of the store; '': the model's only one
    'examples': 3,  # shown of each kind of flip
  }


def _perplexity() -> dict[str, Any]:
  return {
    'models': '',  # that score, NAME=MODEL with commas between; '': those that drew the stores
    'problems': 0,  # scored, from the first; 0: all
    'problem_ids': (),  # these instead
    'samples': 16,  # completions of each problem and author, whatever their verdict
    'correct': 64,  # correct completions of each, for reach
    'pair': '',  # BASE,RL whose solve rates are estimated from each other; '': the first two
    'importance': 1024,  # completions for that, of each problem that only the other one solves
    'calibration': 2,  # problems that both solve, estimated too
    'shown': 2,  # completions of each problem and author whose tokens are kept and shown
    'reach': True,  # at the model's sampling settings: its store's, else the evaluate group's
    'micro_tokens': 8192,  # tokens scored at once
  }


def _compare() -> dict[str, Any]:
  return {
    'base': '',  # the store that the others are compared with; '': the first
    'roles': '',  # of each store, in their order: base | rl | rl:ALGORITHM:SEED | distilled |
    # instruct | teacher; '': base, then rl
    'task': '',  # of stores that hold several; '': their only one
    'samples': 0,  # of each problem, the first ones; 0: all
    'common': False,  # compare on the problems that all stores have, where the sets differ
    # what may differ all the same, with commas: prompts, verifiers, ragged (draws of a problem)
    'allow': '',
    'verifier': '',  # judges other tools' completions anew: math | paper | file.py:function; '': no
    'metric': '',  # of a harness: plus | base (evalplus), exact_match,strict-match (lm-eval)
    'fields': {'id': '', 'verdict': '', 'text': ''},  # column names of a file; '': looked for
  }


def _server() -> dict[str, Any]:
  return {  # where model.name is http://host:port/v1#NAME
    'key_env': 'OPENAI_API_KEY',  # environment variable with the key; never logged or stored
    'concurrency': 16,  # requests at once
    'n': 1,  # completions of a request; with several, lengths need logprobs
    'logprobs': True,  # ask for log-probs, and go on without where there are none
    'timeout_s': 600.0,  # for one request
    'retries': 6,  # of a request that failed, each after twice the wait; then the run ends
    'backoff_s': 1.0,  # the first wait
  }


def _sampling() -> dict[str, Any]:
  return {
    'temperature': 1.0,  # of training's completions
    'top_p': 1.0,  # learning needs 1
    'top_k': 0,  # 0: off; learning needs 0
    'max_tokens': 1024,  # tokens of a completion, its stop token included
    'extras': False,  # store each token's entropy, and its log-prob after top_k and top_p
    'slots': 64,  # completions decoded at once
    'bank_rows': 64,  # prompts resident at once, on every data shard
    'page': 64,  # tokens in a page of the completions' cache; a power of two
    'pages': 0,  # of that cache; 0: as many as let every slot reach max_tokens
    'prompt_capacity': 512,  # tokens; a longer prompt is refused
    'memory_gb': 0.0,  # GiB on each device for weights and cache; decides pages, and slots and
    # bank_rows up to those given; 0: as given
    'chunk': 32,  # decode steps between two looks of the host
    'decode_impl': 'auto',  # of the sampler: auto | xla_paged | tokamax_rpa (TPU) | pallas_gpu
    'tensor': 0,  # devices that share the sampler's weights; 0: mesh.tensor
    'release': False,  # give the sampler's weights and cache back while learning
    'coupling': 'independent',  # of models' draws: independent | common (random numbers)
    'first': 0,  # early stopping when measuring: draws that every problem gets; 0: off
    'stop_after': 0,  # correct draws after which a problem gets no more than `first`; 0: off
  }


def _optimizer() -> dict[str, Any]:
  return {
    'learning_rate': 1e-6,
    'warmup_steps': 0,  # optimizer steps of linear warm-up
    'schedule': 'constant',  # after warm-up: constant | cosine | linear (both to 0)
    'b1': 0.9,
    'b2': 0.999,
    'eps': 1e-8,
    'weight_decay': 0.0,
    'clip_norm': 1.0,  # global gradient norm; 0: no clipping
    'moment_dtype': 'float32',  # of AdamW's first moment
    'second_moment_dtype': 'float32',  # bfloat16: stochastically rounded
    'rounding': 'nearest',  # of bfloat16 parameters: nearest | stochastic
  }


def _distill() -> dict[str, Any]:
  return {
    'method': 'sft',  # sft | logits (the teacher's distributions) | on_policy (on own samples)
    'source': '',  # JSONL of {"prompt", "completion"}, a file or store of a teacher's samples; ''
    # is the task's own corpus
    'author': '',  # of a store: the model whose samples are taken; '': its only one
    'correct_only': True,  # of samples: those that the verifier calls correct
    'most': 0,  # samples of a problem that are learnt from, the first different ones; 0: all
    'teacher': '',  # of logits and on_policy: a model, with the student's tokenizer
    'steps': 1000,  # optimizer steps
    'batch': 64,  # prompt-completion pairs in a step
    'learning_rate': 1e-3,  # peak; schedule, warm-up and the rest are optimizer.*
    'mask_prompt': True,  # no loss on prompt tokens
    'noise': 0.0,  # share of the task's own corpus that is any expression, not an answer
    'export': True,  # the trained model as a Hugging Face directory, WORKDIR/model
    'eval_every': 100,  # steps between held-out looks; 0: never
    'checkpoint_every': 500,  # steps
  }


def _evaluate() -> dict[str, Any]:
  return {
    'n': 64,  # completions of each problem
    'ks': (),  # of pass@k; (): a log grid up to n
    'headline_k': 16,  # the boundary; at most n/4; 0: the largest power of two that is
    'name': '',  # of the model in the store; '' is made from model.name
    'problems': 0,  # evaluated, from the first held-out one; 0: all
    'temperature': 1.0,
    'top_p': 1.0,
    'top_k': 0,  # 0: off
    'guesses': '',  # store or file of answers without reasoning to the same problems; '': none
    'second_verifier': '',  # judges all samples again for the report, as 'paper'; '': none
    'flush_s': 60.0,  # seconds between shards: what a kill can cost of what was finished
    'confidence': 0.95,  # of every interval
    'bootstrap': 10_000,  # resamples
  }


def _claims() -> dict[str, Any]:
  return {  # the ledger of a report; written to claims.json before the first sample is drawn
    'k': 0,  # the boundary, k_max; 0: evaluate.headline_k
    'verifier': '',  # whose verdicts count; '': task.verifier
    'temperature': placeholder(float),  # of the samples that count; open: evaluate.temperature
    'sharpen': 0.01,  # C1: share of problems by which pass@k_max must fall
    'shrink': 0.0,  # C2: share of problems covered by the base only, less by RL only
    'reach': 0.9,  # C3: share of RL's correct completions, and problems, in the base's reach
    'expand': 0.0,  # C4: share of problems that distillation must add at every k
    'alike': 1.0,  # C5: between-algorithm over between-seed variance of pass@1, at most
    'gap': 0.1,  # C5: share of problems between the base's pass@k_max and pass@1 after RL
  }


def _data() -> dict[str, Any]:
  return {
    'against': '',  # job=data: a second task to look for duplicates in; '': train against test
    'against_path': '',  # its task.path
    'against_split': '',  # its task.split
    'ngram': 13,  # words of a run that two problems must share to be overlapping
    'probe': 0,  # problems of the memorisation probe (needs model.name); 0: none
    'shown': 0.6,  # share of a question that the probe shows
  }


def _cot() -> dict[str, Any]:
  return {
    'models': '',  # of the store that are read, 'base,rl'; '': all
    'task': '',  # of the store; '': its only one
    'problems': 12,  # picked in every stratum of c, of each model
    'completions': 4,  # read of each, at most
    'readers': '',  # files that the reading page saved: of one reader, or two, 'a.json,b.json'
    'judge': '',  # such a file of a language model's; used only beside readers'
  }


def presets() -> dict[str, dict[str, Any]]:
  """Named sets of values for a config's argument, each a dotted key -> value."""
  return {
    'clip_higher': {'train.clip_high': 0.28},
    'kl': {'train.kl_coef': 1e-3, 'train.kl_kind': 'k3_st'},
    'no_std': {'train.scale': 'none'},
    'paper_sampling': {'evaluate.temperature': 0.6, 'evaluate.top_p': 0.95},
    'runlocal': {
      'train.iterations': 2,
      'train.prompts': 2,
      'train.group': 4,
      'train.eval_problems': 2,
      'train.eval_samples': 2,
      'evaluate.n': 8,
      'evaluate.ks': (1, 2),
      'evaluate.headline_k': 2,
      'evaluate.problems': 4,
      'sampling.slots': 8,
      'sampling.bank_rows': 8,
      'sampling.max_tokens': 64,
    },
  }


def parse_arg(arg: str) -> dict[str, Any]:
  """'clip_higher,train.group=8' as dotted key -> value; later words win over earlier ones.

  Raises ValueError for a word that is neither a preset nor key=value.
  """
  values: dict[str, Any] = {}
  for word in filter(None, (w.strip() for w in re.split(r',(?![^()]*\))', arg))):
    key, equals, text = word.partition('=')
    if equals:
      values[key] = config_lib.parse_literal(text)
    elif word in presets():
      values |= presets()[word]
    else:
      raise ValueError(
        f'config argument {word!r} is no preset ({", ".join(presets())}) and no key=value'
      )
  return values


def take(arg: str, word: str) -> tuple[bool, str]:
  """Whether `word` is among the words of a config's argument, and the argument without it."""
  words = [w.strip() for w in arg.split(',')]
  return word in words, ','.join(w for w in words if w != word)


def low_rank(config: Config, *, rank: int, learning_rate: float) -> None:
  """Adapters in float32 over frozen bfloat16 weights: what one GPU of 80 GB holds of 7B to 14B."""
  config.model.dtype = 'bfloat16'
  config.lora.rank = rank
  config.optimizer.learning_rate = learning_rate
  config.optimizer.weight_decay = 0.0


def with_presets(config: Config, arg: str) -> Config:
  """config with the values of parse_arg(arg) set. Raises ValueError, see config.set_key."""
  for key, value in parse_arg(arg).items():
    config_lib.set_key(config, key, value, f'config argument {arg!r}')
  return config
