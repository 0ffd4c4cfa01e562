"""Prompts are those of the paper to the character: a base model is sensitive to every one."""

import hashlib

import pytest

from rlvr_jax.tasks.problem import Problem
from rlvr_jax.tasks.prompts import TEMPLATES, render

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
  with pytest.raises(ValueError, match=r'carries no chat template .* choose one of qwen-boxed'):
    render(PROBLEM, 'chat', Tokenizer(None))
  with pytest.raises(
    ValueError, match="is a chat, template='raw' is for text; use template='chat'"
  ):
    render(Problem('1', 'test', ({'role': 'user', 'content': 'Hi'},), ''), 'raw')
