"""Benchmarks and training sets of programs."""

from rlvr_jax.tasks.datasets import rows, rows_code
from rlvr_jax.tasks.datasets.benchmark import RAW, RLLM, Benchmark, Source

_EVALPLUS = 'https://github.com/evalplus'
_LCB = 'hub:livecodebench/code_generation_lite@main'
_DEEPCODER = 'hub:agentica-org/DeepCoder-Preview-Dataset@main'

CODE: dict[str, Benchmark] = {
  'humaneval': Benchmark(
    'HumanEval: complete a function from its docstring',
    'function',
    (
      Source(
        'test',
        f'{RAW}/openai/human-eval/6d43fb980f9fee3c892a914eda09951f772ad10d/data/HumanEval.jsonl.gz',
        ('HumanEval.jsonl.gz',),
        'b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef',
      ),
    ),
    rows_code.humaneval,
    'MIT', '2021-07-07', {'test': 164},
  ),
  'humaneval_plus': Benchmark(
    'HumanEval+ v0.1.10 (EvalPlus): its 1,570 inputs and 122,683 more',
    'function',
    (
      Source(
        'test',
        f'{_EVALPLUS}/humanevalplus_release/releases/download/v0.1.10/HumanEvalPlus.jsonl.gz',
        ('HumanEvalPlus.jsonl.gz', 'HumanEvalPlus.jsonl'),
        '272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101',
      ),
    ),
    rows_code.evalplus,
    'Apache-2.0', '2021-07-07', {'test': 164},
  ),
  'mbpp': Benchmark(
    'MBPP: short functions from one sentence and a test',
    'function',
    (
      Source(
        'all',
        f'{RAW}/deepseek-ai/DeepSeek-Coder/2f9fd85927c669dae3c0fbb2d607274023af243e/Evaluation/MBPP'
        '/data/mbpp.jsonl',
        ('mbpp.jsonl',),
        'ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f',
      ),
    ),
    rows_code.mbpp,
    'CC BY 4.0', '2021-08-16', {'prompt': 10, 'test': 500, 'validation': 90, 'train': 374},
    divide=rows.mbpp_split,
  ),
  'mbpp_plus': Benchmark(
    'MBPP+ v0.2.0 (EvalPlus): 378 checked problems, 1,174 inputs and 39,841 more',
    'function',
    (
      Source(
        'test', f'{_EVALPLUS}/mbppplus_release/releases/download/v0.2.0/MbppPlus.jsonl.gz',
        ('MbppPlus.jsonl.gz', 'MbppPlus.jsonl'),
        'af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63',
      ),
    ),
    rows_code.evalplus,
    'Apache-2.0', '2021-08-16', {'test': 378},
  ),
  'livecodebench': Benchmark(
    'LiveCodeBench (code_generation_lite): contest problems; v5 window 2024-08 to 2025-01 of 279',
    'contest',
    tuple(
      Source('test', f'{_LCB}/test{n}.jsonl', (f'test{n}.jsonl',)) for n in ('', 2, 3, 4, 5, 6)
    ),
    rows_code.livecodebench,
    'CC (see its card)', '2023-05-07', {}, {'difficulty': 'difficulty', 'platform': 'platform'},
    window=('2024-08-01', '2025-02-01'),
  ),
  'code_r1_12k': Benchmark(
    "Code-R1's training set: 2K of LeetCodeDataset and 10K of TACO, verified",
    'code',
    (
      Source(
        'train', 'hub:ganler/code-r1-12k@main/data/train-00000-of-00001.parquet',
        ('train-*.parquet', 'data/train-*.parquet', 'train.parquet', 'train.jsonl'),
        'ba9df84a1a629849b3684a80ec0331aa011ec19f3033bc776888a4eabd08dc0d',
      ),
    ),
    rows_code.code_r1,
    'none declared', '2025-03-09', {},
  ),
  'deepcoder': Benchmark(
    'DeepCoder-Preview: PrimeIntellect, TACO and LiveCodeBench before August 2024',
    'contest',
    (
      *(
        Source('train', f'{_DEEPCODER}/{part}/train-*.parquet', (f'{part}/train*.parquet',))
        for part in ('primeintellect', 'taco', 'lcbv5')
      ),
      Source('test', f'{_DEEPCODER}/lcbv5/test-*.parquet', ('lcbv5/test*.parquet',)),
    ),
    rows_code.rllm,
    'MIT', '2025-04-08', {},
  ),
  'leetcode': Benchmark(
    "LeetCodeDataset as rllm has it: methods of class Solution, tests by check(candidate)",
    'code',
    (
      Source(
        'train', f'{RLLM}/train/code/leetcode.json', ('train.json', 'leetcode.json'),
        '4bd9c5e47165d184b3f3273005cdcd1ef161f55e1ad727101522a288203d2017',
      ),
      Source(
        'test', f'{RLLM}/test/code/leetcode.json', ('test.json',),
        'a0664eee5e7356af13a01932bbe625bb8a0c15f067f5a964bc96f45ba439e66c',
      ),
    ),
    rows_code.rllm,
    'MIT', '2023-10-01', {'train': 1889, 'test': 200},
  ),
  'code_contests': Benchmark(
    "CodeContests' test problems as rllm has them: programs that read stdin",
    'contest',
    (
      Source(
        'test', f'{RLLM}/test/code/code_contests.json', ('test.json', 'code_contests.json'),
        '0e3c580698270ab930268cbc63ea6b9cf920874ac40de4a06bdbebc7c2eade71',
      ),
    ),
    rows_code.rllm,
    'CC BY 4.0', '2022-02-08', {'test': 165},
  ),
  'codeforces': Benchmark(
    'Codeforces problems as rllm has them: programs that read stdin',
    'contest',
    (
      Source(
        'test', f'{RLLM}/test/code/codeforces.json', ('test.json', 'codeforces.json'),
        '8e9eab7fce7e432abe4437dd997c16f1514be51d224f2d72a7bd07d58cce476a',
      ),
    ),
    rows_code.rllm,
    'MIT', '2025-04-08', {'test': 408},
  ),
}  # fmt: skip
