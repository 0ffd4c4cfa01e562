r"""What a model is given: templates over the text of a problem.

The named templates are those of arXiv 2504.13837 (appendix E and its released code), to the
character: a base model is sensitive to them. {input} is the only place filled in.
"""

import difflib
from typing import Protocol

from rlvr_jax.tasks.problem import Problem

_STEP_BY_STEP = 'Please reason step by step, and put your final answer within \\boxed{}.'

TEMPLATES: dict[str, str] = {
  # SimpleRL-Zoo and its base models; the released code gives it to Oat-Zero too.
  'qwen-boxed': (
    '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n'
    '<|im_start|>user\n{input}\n' + _STEP_BY_STEP + '<|im_end|>\n'
    '<|im_start|>assistant\n'
  ),
  # Oat-Zero, figure 22.
  'qwen25-math-cot': (
    '<|im_start|>system\n' + _STEP_BY_STEP + '<|im_end|>\n'
    '<|im_start|>user\n{input}<|im_end|>\n'
    '<|im_start|>assistant\n'
  ),
  # DAPO-32B and its base.
  'abel': (
    'A conversation between user and assistant. The user asks a question, and the assistant '
    "solves it. The time limit is set to 20,480 tokens. If the assistant's response exceeds this "
    'limit, a progressively increasing penalty with the number of tokens exceeded will be '
    'applied.\n'
    'user\n'
    'Solve the following math problem step by step. The last line of your response should be of '
    'the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n'
    '{input}\n'
    'Remember to put your answer on its own line after "Answer:".\n'
    'assistant'
  ),
  # The study of algorithms on Omni-MATH and MATH500 (verl). The code has the full stop before
  # "Assistant:", figure 27 has not; the code is what the models saw.
  'deepseek-r1': (
    'A conversation between User and Assistant. The user asks a question, and the Assistant solves '
    'it. The assistant first thinks about the reasoning process in the mind and then provides the '
    'user with the answer. The reasoning process and answer are enclosed within <think> </think> '
    'and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> '
    '<answer> answer here </answer>. User: {input}. Assistant:'
  ),
  # The problem and nothing else.
  'raw': '{input}',
}

# What stands before and after a user's further turn, behind a completion and its stop token.
_CHATML = '\n<|im_start|>user\n', '<|im_end|>\n<|im_start|>assistant\n'
FRAMES: dict[str, tuple[str, str]] = {
  'abel': ('\nuser\n', '\nassistant'),
  'deepseek-r1': (' User: ', ' Assistant:'),
  'raw': ('\n', '\n'),
}

CHAT = 'chat'  # the template that the model's tokenizer carries


class ChatTokenizer(Protocol):
  """What 'chat' needs of a tokenizer (those of transformers have it)."""

  def apply_chat_template(
    self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
  ) -> str:
    """The conversation as one string that ends where the assistant begins to write."""
    ...


def render(problem: Problem, template: str, tokenizer: ChatTokenizer | None = None) -> str:
  """The prompt text of a problem.

  Args:
    problem: its prompt is put in place of {input}; chat messages need the template 'chat'.
    template: a key of TEMPLATES, or 'chat'.
    tokenizer: needed by 'chat' only.

  The result holds its special tokens as text: tokenize it without adding any more.
  Raises ValueError for an unknown template, for chat messages under a text template, and for
  'chat' without a tokenizer or with one that carries no chat template.
  """
  if template == CHAT:
    return _render_chat(problem, tokenizer)
  if template not in TEMPLATES:
    names = [*TEMPLATES, CHAT]
    near = difflib.get_close_matches(template, names, n=1)
    raise ValueError(
      f'template={template!r} is not known'
      + (f'; did you mean {near[0]!r}?' if near else '')
      + f' (one of {", ".join(names)})'
    )
  if not isinstance(problem.prompt, str):
    raise ValueError(
      f'problem {problem.task}/{problem.id} is a chat, template={template!r} is for text; use '
      f'template={CHAT!r}'
    )
  # Not str.format: problems and templates are full of braces.
  return TEMPLATES[template].replace('{input}', problem.prompt)


def _render_chat(problem: Problem, tokenizer: ChatTokenizer | None) -> str:
  if tokenizer is None:
    raise ValueError(f'template={CHAT!r} needs the tokenizer of a model with a chat template')
  if getattr(tokenizer, 'chat_template', True) is None:
    raise ValueError(
      f'template={CHAT!r}: this tokenizer carries no chat template (base models often have none); '
      f'choose one of {", ".join(TEMPLATES)}'
    )
  if isinstance(problem.prompt, str):
    messages = [{'role': 'user', 'content': problem.prompt}]
  else:
    messages = [dict(message) for message in problem.prompt]
  return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def frame(template: str, tokenizer: ChatTokenizer | None = None) -> tuple[str, str]:
  """(before, after) a user's further turn in a conversation, behind what the assistant wrote.

  With a template that is not text both are what the tokenizer's chat template writes there, and
  before begins with what ends the assistant's turn (a stop token, which the model may have written
  itself). Raises ValueError as render does, and for a chat template that does not show both turns
  once.
  """
  if template in FRAMES:
    return FRAMES[template]
  if '<|im_start|>' in TEMPLATES.get(template, ''):
    return _CHATML
  written, observed = 'what-the-assistant-wrote', 'what-the-user-says'
  messages = (('user', 'question'), ('assistant', written), ('user', observed))
  chat = tuple({'role': role, 'content': content} for role, content in messages)
  text = _render_chat(Problem('', '', chat, None), tokenizer)
  if text.count(written) != 1 or text.count(observed) != 1:
    raise ValueError(
      f'template={CHAT!r}: the chat template of this tokenizer does not show a conversation of two '
      'turns, so it cannot go on; choose another task.template'
    )
  before, _, after = text.partition(written)[2].partition(observed)
  return before, after
