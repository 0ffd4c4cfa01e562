"""Word problems with a Python session: GSM8K's JSON lines, a prompt that explains the tool.

  python main.py --config=configs/grpo_qwen0p5b.py --config.task.path= --config.task.holdout=0 \
    --config.task.module=docs/examples/python_tool.py \
    --config.task.params="{'path': 'gsm8k/train.jsonl', 'count': 64}" --config.task.template=chat \
    --config.task.turns=3 --config.sampling.prompt_capacity=768 --workdir=runs/python_tool
"""

import json

environment = 'python'
prompt = (
  'Solve the problem with Python. Write one short program between <python> and </python>; it is '
  'run, and what it prints is shown to you as <output>...</output>. Then give the answer as '
  '\\boxed{number}.\n\nExample: How many legs have 7 dogs and 3 birds?\n'
  '<python>print(7 * 4 + 3 * 2)</python><output>34\n</output>The answer is \\boxed{34}.\n\n'
  'Problem: {input}'
)


def problems(params):
  """The first params['count'] lines of params['path']; an answer is what follows ####."""
  with open(params['path'], encoding='utf-8') as lines:
    for number, line in zip(range(params.get('count', 64)), lines, strict=False):
      row = json.loads(line)
      answer = row['answer'].split('####')[-1].strip().replace(',', '')
      yield {'id': str(number), 'question': row['question'], 'answer': answer}
