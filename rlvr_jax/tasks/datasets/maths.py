"""Benchmarks and training sets of mathematics, with and without images."""

from rlvr_jax.tasks.datasets import rows, rows_vision
from rlvr_jax.tasks.datasets.benchmark import RAW, RLLM, Benchmark, Source

_PAPER = (
  f'{RAW}/LeapLabTHU/limit-of-RLVR/fd2cf37f05cc7dced9c558fa358a18e0497cb463/math/examples'
  '/math_eval/data'
)
_GSM8K = (
  f'{RAW}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data'
)
_MATHRULER = f'{RAW}/hiyouga/MathRuler/14dadeb0e962ff707aba889c85979155d25245ce/data/aime_splits'
_FORM = {'form': 'question_type'}  # free_form or multi_choice
_ZOO = 'hub:hkust-nlp/SimpleRL-Zoo-Data@main'


def _zoo(level: str, folder: str) -> Source:
  # the same problems lie in an `abel` folder too, with another prompt around them
  names = tuple(f'{part}/train.parquet' for part in (folder, folder.replace('qwen', 'abel')))
  return Source(level, f'{_ZOO}/{names[0]}', (*names, f'{level}.parquet', f'{level}.jsonl'))


MATHS: dict[str, Benchmark] = {
  'gsm8k': Benchmark(
    'GSM8K: grade-school word problems',
    'math',
    (
      Source(
        'train', f'{_GSM8K}/train.jsonl', ('train.jsonl',),
        '17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465',
      ),
      Source(
        'test', f'{_GSM8K}/test.jsonl', ('test.jsonl',),
        '3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14',
      ),
    ),
    rows.question_answer('question'),
    'MIT', '2021-10-27', {'train': 7473, 'test': 1319},
  ),
  'math': Benchmark(
    'MATH (Hendrycks et al.): competition problems of five levels',
    'math',
    (
      Source(
        'train',
        'hub:DigitalLearningGmbH/MATH-lighteval@0530c78699ea5e8eb5530600900e1f328b48acad'
        '/data/train-00000-of-00001.parquet',
        ('train.jsonl', 'train-*.parquet', 'data/train-*.parquet', 'train.json'),
        'eca6e667f4305dd5e5ba09b4fd55e7f3174a0fbe361cdfd4c44758b593a76933',
      ),
      Source(
        'test',
        f'{RAW}/microsoft/ToRA/213c1c995038c73fab10343814df7a42f990f026/src/data/math/test.jsonl',
        ('test.jsonl', 'test-*.parquet', 'data/test-*.parquet'),
        '3371949f33dd702d04b43fddd7d53a028de0aaca0e76abb1b875a050297b3aa4',
      ),
    ),
    rows.math,
    'MIT', '2021-03-05', {'train': 7500, 'test': 5000}, {'level': 'level', 'type': 'type'},
  ),
  'math500': Benchmark(
    "MATH500: PRM800K's 500 problems of MATH's test set",
    'math',
    (
      Source(
        'test', f'{_PAPER}/math500/test.jsonl', ('test.jsonl',),
        '35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132',
      ),
    ),
    rows.math500,
    'MIT', '2021-03-05', {'test': 500}, {'level': 'level', 'subject': 'subject'},
  ),
  'minerva': Benchmark(
    'Minerva Math: undergraduate questions of MIT OpenCourseWare',
    'math',
    (
      Source(
        'test', f'{_PAPER}/minerva_math/test.jsonl', ('test.jsonl',),
        '0e656b430d3a0a1dab6aa853f453ba3805e28e2cabe4fc72486a897cc09d8ba2',
      ),
    ),
    rows.math,
    'CC BY-NC-SA 4.0', '2022-06-29', {'test': 272},
  ),
  'olympiadbench': Benchmark(
    'OlympiadBench: text only, open-ended, maths, English (OE_TO_maths_en_COMP)',
    'math',
    (
      Source(
        'test', f'{_PAPER}/olympiadbench/test.jsonl', ('test.jsonl',),
        'bb8c1e38a16ea9eacb77530315a674d883f267fbff79183effc53681b4fcc416',
      ),
    ),
    rows.olympiad,
    'MIT', '2024-02-21', {'test': 675}, {'type': 'answer_type', 'subject': 'subfield'},
  ),
  'aime24': Benchmark(
    "AIME I and II of 2024; ids are the paper's indices, from 0",
    'math',
    (
      Source(
        'test', f'{_PAPER}/aime24/test.jsonl', ('test.jsonl', 'aime_2024.jsonl'),
        'af2b8bd2aa911b6333ad0df32f3ca05c7ae8ed10f1731f4372c8ae26990bf7ac',
      ),
    ),
    rows.contest,
    'problems (c) MAA', '2024-01-31', {'test': 30},
  ),
  'aime25': Benchmark(
    'AIME I and II of 2025',
    'math',
    (
      Source(
        'test', f'{_MATHRULER}/aime_2025.jsonl', ('test.jsonl', 'aime_2025.jsonl'),
        'c19e99ec39a417daed2ffbd5710819bc6d4cca775929268e47a96cdcff5c68ea',
      ),
    ),
    rows.contest,
    'problems (c) MAA; file Apache-2.0', '2025-02-06', {'test': 30},
  ),
  'aime_1983_2023': Benchmark(
    'AIME of 1983 to 2023, to train on',
    'math',
    (
      Source(
        'train', f'{RLLM}/train/math/aime.json', ('train.json', 'aime.json'),
        '78f1b9bae6d00794b43e79a5842917f7ef4e355d9b705743c61f255f3c7c5d49',
      ),
    ),
    rows.contest,
    'problems (c) MAA; file MIT', '1983-03-22', {'train': 975}, {'year': 'year'},
  ),
  'amc23': Benchmark(
    'AMC 12 A and B of 2023, the 40 with a whole-number answer',
    'math',
    (
      Source(
        'test', f'{_PAPER}/amc23/test.jsonl', ('test.jsonl',),
        '43707e1ca784602d8479de24ee8ce36609dbebc46dd152b0b12a46611aa898a4',
      ),
    ),
    rows.contest,
    'problems (c) MAA', '2023-11-08', {'test': 40},
  ),
  'omni_math_rule': Benchmark(
    'Omni-MATH-Rule: olympiad problems that rules can judge; 2000/821, a seeded split of ours',
    'math',
    (
      Source(
        'all', f'{RAW}/KbsdJames/omni-math-rule/main/omni_math_rule.jsonl',
        ('omni_math_rule.jsonl', 'rule.jsonl', 'test.jsonl'),
      ),
    ),
    rows.question_answer(keep=('domain', 'difficulty', 'source')),
    'Apache-2.0', '2024-10-10', {'train': 2000, 'test': 821}, {'difficulty': 'difficulty'},
    divide=rows.omni_split,
  ),
  'simplerl_zoo': Benchmark(
    'SimpleRL-Zoo-Data by level: easy (GSM8K and MATH 1), medium (MATH 1-4), hard (MATH 3-5)',
    'math',
    (
      _zoo('easy', 'simplelr_qwen_gsm8k_level1'),
      _zoo('medium', 'simplelr_qwen_level1to4'),
      _zoo('hard', 'simplelr_qwen_level3to5'),
    ),
    rows.simplerl,
    'MIT', '2021-03-05', {'hard': 8523},
  ),
  'dapo_math_17k': Benchmark(
    'DAPO-Math-17k: whole-number answers; the file repeats each problem about 100 times, once here',
    'math',
    (
      Source(
        'train', 'hub:BytedTsinghua-SIA/DAPO-Math-17k@main/data/dapo-math-17k.parquet',
        ('dapo-math-17k.parquet', 'data/dapo-math-17k.parquet', 'train.parquet', 'train.jsonl'),
      ),
    ),
    rows.dapo,
    'Apache-2.0', '2025-03-17',
    repeating=True,
  ),
  'math12k': Benchmark(
    "MATH-12k: MATH's 12,500 problems without MATH500, which is its test split",
    'math',
    tuple(
      Source(
        split, f'hub:hiyouga/math12k@main/data/{split}-00000-of-00001.parquet',
        (f'{split}-*.parquet', f'data/{split}-*.parquet', f'{split}.jsonl'),
      )
      for split in ('train', 'test')
    ),
    rows.question_answer(),
    'MIT', '2021-03-05', {'train': 12_000, 'test': 500},
  ),
}  # fmt: skip

VISION: dict[str, Benchmark] = {
  'geometry3k': Benchmark(
    "Geometry3K: the right choice's value is the gold",
    'vision',
    tuple(
      Source(
        split, f'https://lupantech.github.io/inter-gps/geometry3k/{name}.zip',
        (
          name, f'{name}.zip', f'{split}-*.parquet', f'data/{split}-*.parquet',
          *(('examples',) if split == 'train' else ()),
        ),
      )
      for split, name in (('train', 'train'), ('validation', 'val'), ('test', 'test'))
    ),
    rows_vision.geometry3k,
    'MIT', '2021-05-10', {'train': 2101, 'validation': 300, 'test': 601},
  ),
  'mathvista': Benchmark(
    "MathVista testmini, under its own query; by default its 460 free-form rows of 1000",
    'vision',
    (
      Source(
        'test', 'hub:AI4Math/MathVista@main/data/testmini-*.parquet',
        ('testmini.json', 'testmini-*.parquet', 'data/testmini-*.parquet'),
        copies=('ab0148dca9d401c31cc47f29b3826eec28a76ff155a1c0878d81e8daf0413480',),
      ),
    ),
    rows_vision.mathvista,
    'CC BY-SA 4.0', '2023-10-03', {'test': 1000}, {'type': 'answer_type', **_FORM},
    usual={'form': rows_vision.FREE},
  ),
  'mathvision': Benchmark(
    'MATH-Vision testmini; by default its 114 free-form rows of 304',
    'vision',
    tuple(
      Source(
        split, f'hub:MathLLMs/MathVision@main/data/{name}-*.parquet',
        (f'{name}.jsonl', f'{name}-*.parquet', f'data/{name}-*.parquet'),
        copies=(known,),
      )
      for split, name, known in (
        ('test', 'testmini', '449e238b768f702e2659543495f2c87ee1f41a9e9c013d174daf12029756227a'),
        ('full', 'test', '36608758db6205692f59423316ba281a4e2e5f23286452ae31739ed4278133a8'),
      )
    ),
    rows_vision.mathvision,
    'MIT', '2024-02-22', {'test': 304, 'full': 3040},
    {'level': 'level', 'subject': 'subject', **_FORM},
    usual={'form': rows_vision.FREE},
  ),
}  # fmt: skip
