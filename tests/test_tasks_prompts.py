"""Prompts are those of the paper to the character: a base model is sensitive to every one."""

import hashlib

import pytest

from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.prompts import (
  CHATS,
  PAPER,
  TEMPLATES,
  assistant_prefix,
  mathvista_query,
  paper_template,
  render,
  with_prefix,
  writes_bos,
)

QUESTION = 'What is {x} if $x = \\frac{1}{2}$?'  # braces must not be taken for places to fill
PROBLEM = Problem('1', 'test', QUESTION, '0.5')

GOLDENS = {
  'raw': QUESTION,
  'qwen-boxed': (
    '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n'
    + QUESTION
    + '\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n'
    '<|im_start|>assistant\n'
  ),
  'qwen25-math-cot': (
    '<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.'
    '<|im_end|>\n<|im_start|>user\n' + QUESTION + '<|im_end|>\n<|im_start|>assistant\n'
  ),
  'livecodebench': (
    '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nYou will be '
    'given a question (problem specification) and will generate a correct Python program that '
    'matches the specification and passes all tests. You will NOT return anything except for the '
    'program.\n\nQuestion: ' + QUESTION + '\n\n### Format: Read the inputs from stdin solve the '
    'problem and write the answer to stdout (do not directly test on the sample inputs). Enclose '
    'your code within delimiters as follows. Ensure that when the python program runs, it reads '
    'the inputs, runs the algorithm and writes output to STDOUT.\n```python\n# YOUR CODE '
    'HERE\n```\n\n<|im_end|>\n<|im_start|>assistant\n```python'
  ),
  'easyr1': (
    '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant. You '
    'FIRST think about the reasoning process as an internal monologue and then provide the final '
    'answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final answer '
    'MUST BE put in \\boxed{}.<|im_end|>\n<|im_start|>user\n'
    + QUESTION
    + '<|im_end|>\n<|im_start|>assistant\n'
  ),
}


@pytest.mark.parametrize('template', GOLDENS)
def test_golden_texts(template):
  assert render(PROBLEM, template) == GOLDENS[template]


# The two long ones: length, ends and digest of the template with its place still open.
@pytest.mark.parametrize(
  ('template', 'length', 'digest', 'start', 'end'),
  [
    (
      'abel',
      533,
      '2ed74e3ada9c7c57',
      'A conversation between user and assistant. The user asks a question, and ',
      '{input}\nRemember to put your answer on its own line after "Answer:".\nassistant',
    ),
    (
      'deepseek-r1',
      425,
      '7be67e61264681e3',
      'A conversation between User and Assistant. The user asks a question, and ',
      '<answer> answer here </answer>. User: {input}. Assistant:',
    ),
  ],
)
def test_golden_digests(template, length, digest, start, end):
  text = TEMPLATES[template]
  assert len(text) == length
  assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest
  assert text.startswith(start)
  assert text.endswith(end)
  assert render(PROBLEM, template) == text.replace('{input}', QUESTION)


@pytest.mark.parametrize('template', TEMPLATES)
def test_every_template_has_one_place_for_the_problem(template):
  assert TEMPLATES[template].count('{input}') == 1


class Tokenizer:
  def __init__(self, chat_template: str | None = 'jinja'):
    self.chat_template = chat_template

  def apply_chat_template(self, conversation, *, tokenize, add_generation_prompt):
    assert not tokenize
    assert add_generation_prompt
    return ''.join(f'<{m["role"]}>{m["content"]}' for m in conversation) + '<assistant>'


def test_chat_uses_the_template_of_the_tokenizer():
  assert render(PROBLEM, 'chat', Tokenizer()) == f'<user>{QUESTION}<assistant>'
  messages = ({'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi'})
  chat = Problem('1', 'test', messages, '')
  assert render(chat, 'chat', Tokenizer()) == '<system>Be brief.<user>Hi<assistant>'


def test_errors_name_the_template_and_the_way_out():
  with pytest.raises(ValueError, match=r"template='qwen_boxed' .* did you mean 'qwen-boxed'"):
    render(PROBLEM, 'qwen_boxed')
  with pytest.raises(ValueError, match='needs the tokenizer'):
    render(PROBLEM, 'chat')
  with pytest.raises(ValueError, match=r'carries no chat template .*; choose one of qwen-boxed'):
    render(PROBLEM, 'chat', Tokenizer(None))
  with pytest.raises(
    ValueError, match="is a chat, template='raw' is for text; use template='chat'"
  ):
    render(Problem('1', 'test', ({'role': 'user', 'content': 'Hi'},), ''), 'raw')


CHAT_GOLDENS = {
  'chat': f'<user>{QUESTION}<assistant>',
  'evalplus': (
    '<user>Please provide a self-contained Python script that solves the following problem in a '
    'markdown code block:\n```\n' + QUESTION + '\n```\n<assistant>Below is a Python script with a '
    'self-contained function that solves the problem and passes corresponding tests:\n```python\n'
  ),
  'code-r1': (
    '<system>You are a helpful programming assistant. The user will ask you a question and you as '
    'the assistant solve it. The assistant first thinks how to solve the task through reasoning '
    'and then provides the user with the final answer. The reasoning process and answer are '
    'enclosed within <think>...</think> and <answer>...</answer> tags, respectively.<user>'
    + QUESTION
    + '<assistant>'
  ),
  'easyr1-user': (
    '<user>' + QUESTION + ' You FIRST think about the reasoning process as an internal monologue '
    'and then provide the final answer. The reasoning process MUST BE enclosed within <think> '
    '</think> tags. The final answer MUST BE put in \\boxed{}.<assistant>'
  ),
  'mathvision': (
    '<user>Please solve the problem step by step and put your answer in one "\\boxed{}". If it is '
    'a multiple choice question, only one letter is allowed in the "\\boxed{}".\n'
    + QUESTION
    + '\n<assistant>'
  ),
  'dapo': (
    '<user>Solve the following math problem step by step. The last line of your response should be '
    'of the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n'
    + QUESTION
    + '\n\nRemember to put your answer on its own line after "Answer:".<assistant>'
  ),
  'deepcoder': (
    '<user>You are an expert Python programmer. You will be given a question (problem '
    'specification) and will generate a correct Python program that matches the specification and '
    'passes all tests.\n\n' + QUESTION + '### Format: You will use the following starter code to '
    'write the solution to the problem and enclose your code within delimiters.\n```python\nclass '
    'Solution:\n  def f(self): {input}\n```\n\n### Answer: (use the provided format with '
    'backticks)\n\n<assistant>'
  ),
}


@pytest.mark.parametrize('template', CHATS)
def test_golden_chats(template):
  meta = {'starter_code': 'class Solution:\n  def f(self): {input}'}  # no place to fill in
  problem = Problem('1', 'test', QUESTION, '0.5', meta)
  assert render(problem, template, Tokenizer()) == CHAT_GOLDENS[template]
  assert writes_bos(template)


def test_evalplus_strips_the_problem_as_evalplus_does():
  spaced = Problem('1', 'test', f'\n{QUESTION}\n\n', '0.5')
  assert render(spaced, 'evalplus', Tokenizer()) == CHAT_GOLDENS['evalplus']


@pytest.mark.parametrize('template', [*TEMPLATES, *CHATS])
def test_the_prefix_is_what_the_prompt_ends_with(template):
  prefix = assistant_prefix(template)
  assert render(PROBLEM, template, Tokenizer()).endswith(prefix)
  (told,) = with_prefix([PROBLEM], template)
  assert told.meta.get('prefix', '') == prefix
  assert bool(prefix) == (template in ('evalplus', 'livecodebench'))


def test_which_template_the_paper_gives():
  assert {t for kinds in PAPER.values() for t in kinds.values()} <= {*TEMPLATES, *CHATS}
  assert paper_template('math', 'verl') == 'deepseek-r1'
  assert paper_template('function', 'code-r1') == 'evalplus'
  with pytest.raises(ValueError, match="family='easyr1' was measured on vision, not on kind='mat"):
    paper_template('math', 'easyr1')
  with pytest.raises(ValueError, match=r"family='zoo' is not known \(one of simplerl-zoo"):
    paper_template('math', 'zoo')


@pytest.mark.parametrize(
  ('kind', 'hint'),
  [
    (
      ('integer', None),
      'an integer answer and provide the final value, e.g., 1, 2, 3, at the end.',
    ),
    (
      ('float', 2.0),
      'a floating-point number with two decimal places and provide the final value, e.g., 1.23, '
      '1.34, 1.45, at the end.',
    ),
    (
      ('list', None),
      'a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4], at '
      'the end.',
    ),
  ],
)
def test_mathvista_hints(kind, hint):
  row = {'question': 'Q?', 'unit': None, 'answer_type': kind[0], 'precision': kind[1]}
  assert mathvista_query(row) == f'Hint: Please answer the question requiring {hint}\nQuestion: Q?'
  with pytest.raises(ValueError, match="'float 3' have no hint"):
    mathvista_query(row | {'answer_type': 'float', 'precision': 3})
