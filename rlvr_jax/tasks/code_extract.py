r"""Which program a completion holds. Text only: nothing of it is parsed as Python or run.

What the template has begun of the assistant's turn (problem.meta['prefix'], an open fence in
EvalPlus's and LiveCodeBench's) stands before the completion; what follows the last </think> counts,
if anything does. Of the fenced blocks in it (``` or ~~~, a language or none; one that is never
closed runs to the end):

  1. the last that defines the entry point, where there is one to define;
  2. else the last that is Python (`python`, `py`, `python3` or no language);
  3. else the last; without a block the whole text.

A program that does not define the entry point, of a problem whose prompt begins its definition
(HumanEval), is the continuation of the prompt: prompt + program, indented if its first line is not,
up to the first line at the margin that neither defines nor imports.

Of a function's program the definitions count: what a model wrote below them, examples or tests of
its own that fail, or a line that was cut, does not (sandbox/program.py).
"""

import re
import textwrap

from rlvr_jax.tasks.extract import after_thinking

# possessive: a long line with a backtick at its end must not take quadratic time
_FENCE = re.compile(r'^[ \t]*+(```++|~~~++)[ \t]*+([\w+#.-]*+)[^\n`]*+$', re.MULTILINE)
_PYTHON = ('', 'python', 'py', 'python3', 'python2')
# Where a continuation of a function ends: text at the left margin that is no definition.
_CONTINUATION_ENDS = re.compile(r'\n(?!def |class |import |from |async |[@)\]}])(?=\S)')


def extract_program(completion: str, entry_point: str = '', prompt: str = '') -> str:
  """The program of a completion by the policy above; '' if there is none."""
  text = after_thinking(completion)
  blocks = _blocks(text)
  program = _chosen(blocks, entry_point)
  if program is None:
    program = text
  if entry_point and prompt and not defines(program, entry_point):
    body = program if blocks else text
    if body.strip():
      return prompt.rstrip(' \t') + _as_continuation(body)
  return program.strip('\n') if program.strip() else ''


def defines(program: str, name: str) -> bool:
  """Whether a line defines `name`: def, class or an assignment at the left margin or in a class."""
  escaped = re.escape(name)
  return (
    re.search(
      rf'^[ \t]*(?:(?:async[ \t]+)?def|class)[ \t]+{escaped}\b|^{escaped}[ \t]*(?::[^=\n]+)?=(?!=)',
      program,
      re.MULTILINE,
    )
    is not None
  )


def _blocks(text: str) -> list[tuple[str, str]]:
  """(language, content) of each fenced block."""
  fences = list(_FENCE.finditer(text))
  blocks, at = [], 0
  while at < len(fences):
    opening = fences[at]
    closing = next(
      (i for i in range(at + 1, len(fences)) if _closes(fences[i], opening)), len(fences)
    )
    end = fences[closing].start() if closing < len(fences) else len(text)
    content = text[opening.end() + 1 : end]
    if opening[0][0] in ' \t':  # a block in a list is indented with it
      content = textwrap.dedent(content)
    blocks.append((opening[2].lower(), content))
    at = closing + 1
  return blocks


def _closes(fence: re.Match[str], opening: re.Match[str]) -> bool:
  return not fence[2] and fence[1][0] == opening[1][0] and len(fence[1]) >= len(opening[1])


def _chosen(blocks: list[tuple[str, str]], entry_point: str) -> str | None:
  if entry_point:
    for _, content in reversed(blocks):
      if defines(content, entry_point):
        return content
  for language, content in reversed(blocks):
    if language in _PYTHON and content.strip():
      return content
  return blocks[-1][1] if blocks else None


def _as_continuation(body: str) -> str:
  """The body as it goes on after a prompt that ends in a function's docstring."""
  first = body.lstrip('\n')
  if first[:1] not in (' ', '\t'):  # the model left the indentation to the reader
    first = '\n'.join('    ' + line if line.strip() else line for line in first.split('\n'))
  end = _CONTINUATION_ENDS.search(first)
  return (first[: end.start()] if end else first).rstrip() + '\n'
