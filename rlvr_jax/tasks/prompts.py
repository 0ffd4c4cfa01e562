r"""What a model is given: templates over the text of a problem.

Those of arXiv 2504.13837 (appendix E and its released code) and of the harnesses it used, to the
character: a base model is sensitive to them. A template is text (TEMPLATES), or messages for the
chat template of the model's tokenizer with, it may be, the beginning of the answer (CHATS).
PAPER says which one a kind of benchmark takes with which family of models. Places filled in:
{input} the problem, {stripped} the same without blanks around it, {format} what LiveCodeBench says
of the program's form.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from rlvr_jax.tasks.problem import Problem

_STEP_BY_STEP = 'Please reason step by step, and put your final answer within \\boxed{}.'

IMAGE_MARK = '<image>'
IMAGE_PAD = '<|image_pad|>'
IMAGE = f'<|vision_start|>{IMAGE_PAD}<|vision_end|>'  # what the chat template of Qwen2.5-VL writes

_EASYR1 = (
  'You FIRST think about the reasoning process as an internal monologue and then provide the final '
  'answer. The reasoning process MUST BE enclosed within <think> </think> tags. The final answer '
  'MUST BE put in \\boxed{}.'
)

# The two format texts of LiveCodeBench (lcb_runner/prompts/code_generation.py, PromptConstants).
LCB_WITH_STARTER = (
  'You will use the following starter code to write the solution to the problem and enclose your '
  'code within delimiters.'
)
LCB_WITHOUT_STARTER = (
  'Read the inputs from stdin solve the problem and write the answer to stdout (do not directly '
  'test on the sample inputs). Enclose your code within delimiters as follows. Ensure that when '
  'the python program runs, it reads the inputs, runs the algorithm and writes output to STDOUT.'
)

# What DAPO-Math-17k has around each problem.
DAPO_BEFORE = (
  'Solve the following math problem step by step. The last line of your response should be of the '
  'form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n'
)
DAPO_AFTER = '\n\nRemember to put your answer on its own line after "Answer:".'

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
  # LiveCodeBench, figure 24: Qwen's chat form; the assistant's turn begins with the fence.
  'livecodebench': (
    '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n'
    '<|im_start|>user\nYou will be given a question (problem specification) and will generate a '
    'correct Python program that matches the specification and passes all tests. You will NOT '
    'return anything except for the program.\n\n'
    'Question: {input}\n\n{format}<|im_end|>\n'
    '<|im_start|>assistant\n```python'
  ),
  # EasyR1's form of March 2025: the paper's vision models. A line ends behind the image.
  'easyr1': (
    '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant. '
    + _EASYR1
    + '<|im_end|>\n<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n'
  ),
  # The problem and nothing else.
  'raw': '{input}',
}


@dataclasses.dataclass(frozen=True)
class Chat:
  """Messages for a tokenizer's chat template, then the beginning of the assistant's answer."""

  user: str
  system: str = ''
  prefix: str = ''


CHATS: dict[str, Chat] = {
  # The template that the model's tokenizer carries, and nothing of ours.
  'chat': Chat('{input}'),
  # EvalPlus' default for chat models (evalplus/provider/utility.py and codegen.py).
  'evalplus': Chat(
    'Please provide a self-contained Python script that solves the following problem in a markdown '
    'code block:\n```\n{stripped}\n```\n',
    prefix=(
      'Below is a Python script with a self-contained function that solves the problem and passes '
      'corresponding tests:\n```python\n'
    ),
  ),
  # Code-R1's training (examples/data_preprocess/coder1.py); its 12K rows carry it already.
  'code-r1': Chat(
    '{input}',
    system=(
      'You are a helpful programming assistant. The user will ask you a question and you as the '
      'assistant solve it. The assistant first thinks how to solve the task through reasoning and '
      'then provides the user with the final answer. The reasoning process and answer are enclosed '
      'within <think>...</think> and <answer>...</answer> tags, respectively.'
    ),
  ),
  # DeepCoder's, a port of LiveCodeBench's generic one (rllm/data/utils.py).
  'deepcoder': Chat(
    'You are an expert Python programmer. You will be given a question (problem specification) and '
    'will generate a correct Python program that matches the specification and passes all '
    'tests.\n\n{input}{format}### Answer: (use the provided format with backticks)\n\n'
  ),
  # EasyR1's form since (examples/format_prompt/math.jinja): the same words behind the question.
  'easyr1-user': Chat('{stripped} ' + _EASYR1),
  # MATH-Vision's own (models/Qwen-VL.py), which asks for the letter of an option.
  'mathvision': Chat(
    'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a '
    'multiple choice question, only one letter is allowed in the "\\boxed{}".\n{input}\n'
  ),
  # DAPO-Math-17k's own prompt, which its rows have lost here.
  'dapo': Chat(DAPO_BEFORE + '{input}' + DAPO_AFTER),
}
CHAT = 'chat'
_BEHIND_IMAGES = {'easyr1': '\n'}  # what a template writes between leading images and the text
_PREFIXES = {'livecodebench': '```python'} | {
  name: chat.prefix for name, chat in CHATS.items() if chat.prefix
}

# Family of models -> kind of benchmark (datasets/table.py) -> template. The base that a family's
# RL models began with is asked as they are.
PAPER: dict[str, dict[str, str]] = {
  'simplerl-zoo': {'math': 'qwen-boxed'},
  'oat-zero': {'math': 'qwen25-math-cot'},  # figure 22; the released code has qwen-boxed
  'dapo': {'math': 'abel'},
  'verl': {'math': 'deepseek-r1'},  # the study of algorithms: Omni-MATH and MATH500
  'code-r1': {'function': 'evalplus', 'contest': 'livecodebench', 'code': 'chat'},
  'deepcoder': {'function': 'evalplus', 'contest': 'deepcoder', 'code': 'deepcoder'},
  'easyr1': {'vision': 'easyr1'},
}

_MATHVISTA_CHOICE = (
  'Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at '
  'the end.'
)
_MATHVISTA_HINTS = {
  'integer': 'an integer answer and provide the final value, e.g., 1, 2, 3',
  'float 1': (
    'a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, '
    '1.4'
  ),
  'float 2': (
    'a floating-point number with two decimal places and provide the final value, e.g., 1.23, '
    '1.34, 1.45'
  ),
  'list': (
    'a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4]'
  ),
}

# What stands before and after a user's further turn, behind a completion and its stop token.
_CHATML = '\n<|im_start|>user\n', '<|im_end|>\n<|im_start|>assistant\n'
FRAMES: dict[str, tuple[str, str]] = {
  'abel': ('\nuser\n', '\nassistant'),
  'deepseek-r1': (' User: ', ' Assistant:'),
  'raw': ('\n', '\n'),
}


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
    problem: its prompt is put into the template; chat messages need the template 'chat'.
    template: a key of TEMPLATES or CHATS.
    tokenizer: needed by those of CHATS only.

  The result holds its special tokens as text: tokenize it without adding any more.
  Raises ValueError for an unknown template, for chat messages under another template than 'chat',
  under one of CHATS without a tokenizer or with one that carries no chat template, and for a text
  with another number of IMAGE_MARK than the problem has images.
  """
  check_template(template)
  if not isinstance(problem.prompt, str) and template != CHAT:
    raise ValueError(
      f'problem {problem.task}/{problem.id} is a chat, template={template!r} is for text; use '
      f'template={CHAT!r}'
    )
  written = _with_images(problem, template) if problem.images else problem
  if template in CHATS:
    text = _render_chat(written, template, tokenizer)
  else:
    text = _fill(TEMPLATES[template], written)
  if problem.images and text.count(IMAGE_PAD) != len(problem.images):
    raise ValueError(
      f'problem {problem.task}/{problem.id}: its prompt has {text.count(IMAGE_PAD)} times '
      f'{IMAGE_PAD} for {len(problem.images)} images: its own text, or the chat template of the '
      'tokenizer, does not fit; mend the text, or choose another task.template'
    )
  return text


def check_template(template: str) -> None:
  """ValueError, with the nearest name, for a template that does not exist."""
  names = [*TEMPLATES, *CHATS]
  if template not in names:
    near = difflib.get_close_matches(template, names, n=1)
    raise ValueError(
      f'template={template!r} is not known'
      + (f'; did you mean {near[0]!r}?' if near else '')
      + f' (one of {", ".join(names)})'
    )


def writes_bos(template: str) -> bool:
  """Whether the rendered prompt begins with the tokenizer's own BOS, as chat templates write it."""
  return template in CHATS


def assistant_prefix(template: str) -> str:
  """The beginning of the assistant's answer that the template has written: a completion goes on
  after it, so a program that is looked for in one may have begun in the prompt."""
  return _PREFIXES.get(template, '')


def with_prefix(problems: Iterable[Problem], template: str) -> list[Problem]:
  """The problems with meta['prefix'], the template's assistant_prefix, where it has one."""
  prefix = assistant_prefix(template)
  if not prefix:
    return list(problems)
  return [dataclasses.replace(p, meta={**p.meta, 'prefix': prefix}) for p in problems]


def paper_template(kind: str, family: str) -> str:
  """The template that a kind of benchmark takes with a family of models, by PAPER.

  Raises ValueError for a family that is not there or was not measured on this kind.
  """
  if family not in PAPER:
    raise ValueError(f'family={family!r} is not known (one of {", ".join(PAPER)})')
  if kind not in PAPER[family]:
    measured = ', '.join(PAPER[family])
    raise ValueError(f'family={family!r} was measured on {measured}, not on kind={kind!r}')
  return PAPER[family][kind]


def lettered(options: Sequence[str]) -> str:
  """Options as the harnesses write them, one a line: (A) 135, (B) 140."""
  return '\n'.join(f'({chr(ord("A") + place)}) {option}' for place, option in enumerate(options))


def mathvista_query(row: Mapping[str, Any]) -> str:
  """MathVista's query without examples, its hint first (evaluation/build_query.py)."""
  unit = f' (Unit: {row["unit"]})' if row.get('unit') else ''
  question = f'Question: {row["question"]}{unit}'
  if row.get('choices'):
    return f'{_MATHVISTA_CHOICE}\n{question}\nChoices:\n{lettered(row["choices"])}'
  kind = str(row.get('answer_type'))
  if kind == 'float':
    kind = f'float {int(row.get("precision") or 0)}'
  if kind not in _MATHVISTA_HINTS:
    raise ValueError(f'answer_type and precision {kind!r} have no hint ({list(_MATHVISTA_HINTS)})')
  hint = f'Hint: Please answer the question requiring {_MATHVISTA_HINTS[kind]}, at the end.'
  return f'{hint}\n{question}'


def _with_images(problem: Problem, template: str) -> Problem:
  """The problem with IMAGE in its text for each of its images."""
  text, count = problem.prompt, len(problem.images)
  messages = () if isinstance(text, str) else text
  said = text if isinstance(text, str) else ''.join(m['content'] for m in messages)
  marks = said.count(IMAGE_MARK)
  if marks not in (0, count):
    raise ValueError(
      f'problem {problem.task}/{problem.id}: its prompt says {IMAGE_MARK} {marks} times and it has '
      f'{count} images; say it once for each, or nowhere'
    )
  if not isinstance(text, str):
    placed = tuple({**m, 'content': m['content'].replace(IMAGE_MARK, IMAGE)} for m in messages)
    return dataclasses.replace(problem, prompt=placed)
  if not marks and template in TEMPLATES:
    text = IMAGE * count + _BEHIND_IMAGES.get(template, '') + text
  return dataclasses.replace(problem, prompt=text.replace(IMAGE_MARK, IMAGE))


def _fill(template: str, problem: Problem) -> str:
  # One pass, not str.format: problems and templates are full of braces.
  text = str(problem.prompt)
  values = {'input': text, 'stripped': text.strip()}
  if '{format}' in template:
    values['format'] = _program_format(str(problem.meta.get('starter_code') or ''))
  return re.sub(r'\{(input|stripped|format)\}', lambda match: values[match[1]], template)


def _program_format(starter: str) -> str:
  says, code = (LCB_WITH_STARTER, starter) if starter else (LCB_WITHOUT_STARTER, '# YOUR CODE HERE')
  return f'### Format: {says}\n```python\n{code}\n```\n\n'


def _render_chat(problem: Problem, template: str, tokenizer: ChatTokenizer | None) -> str:
  if tokenizer is None:
    raise ValueError(f'template={template!r} needs the tokenizer of a model with a chat template')
  if getattr(tokenizer, 'chat_template', True) is None:
    raise ValueError(
      f'template={template!r}: this tokenizer carries no chat template (base models often have '
      f'none); choose one of {", ".join(TEMPLATES)}'
    )
  messages, prefix = chat_messages(problem, template)
  if problem.images and not any(IMAGE in message['content'] for message in messages):
    asked = next((m for m in messages if m['role'] == 'user'), messages[-1])
    asked['content'] = IMAGE * len(problem.images) + asked['content']
  opened = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
  return opened + prefix


def chat_messages(problem: Problem, template: str) -> tuple[list[dict[str, str]], str]:
  """(messages, beginning of the answer) under a template of CHATS."""
  chat = CHATS[template]
  if not isinstance(problem.prompt, str):
    return [dict(message) for message in problem.prompt], chat.prefix
  messages = [{'role': 'user', 'content': _fill(chat.user, problem)}]
  if chat.system:
    messages.insert(0, {'role': 'system', 'content': chat.system})
  return messages, chat.prefix


def frame(template: str, tokenizer: ChatTokenizer | None = None) -> tuple[str, str]:
  """(before, after) a user's further turn in a conversation, behind what the assistant wrote.

  after ends with the assistant_prefix of the template, as the first prompt does.
  With a template that is not text both are what the tokenizer's chat template writes there, and
  before begins with what ends the assistant's turn (a stop token, which the model may have written
  itself). Raises ValueError as render does, and for a chat template that does not show both turns
  once.
  """
  prefix = assistant_prefix(template)
  if template in TEMPLATES:
    qwens = '<|im_start|>' in TEMPLATES[template]
    before, after = _CHATML if qwens else FRAMES[template]
    return before, after + prefix
  written, observed = 'what-the-assistant-wrote', 'what-the-user-says'
  messages = (('user', 'question'), ('assistant', written), ('user', observed))
  chat = tuple({'role': role, 'content': content} for role, content in messages)
  text = _render_chat(Problem('', '', chat, None), CHAT, tokenizer)
  if text.count(written) != 1 or text.count(observed) != 1:
    raise ValueError(
      f'template={CHAT!r}: the chat template of this tokenizer does not show a conversation of two '
      'turns, so it cannot go on; choose another task.template'
    )
  before, _, after = text.partition(written)[2].partition(observed)
  return before, after + prefix
