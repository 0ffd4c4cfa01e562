"""How the pool and its workers talk: frames of JSON behind a 4-byte big-endian length.

Parent to worker: {'problems': [...], 'jobs': [[problem's index, verifier, version, text], ...]}.
Worker to parent: first {'ready': true}; then one frame a job, in order, [verdict, reward,
extracted, reason, sandbox, fresh], where fresh asks for a new process; and before and after a
verifier is imported {'loading': name} and {'loaded': name}, or {'failed': name, 'why': text}.
"""

import json
import os
import struct
from collections.abc import Iterator
from typing import Any

from rlvr_jax.tasks.problem import Problem

_HEADER = struct.Struct('>I')
_CHUNK = 1 << 16


def encode(value: Any) -> bytes:
  """One frame. Lone surrogates survive (JSON escapes them)."""
  body = json.dumps(value, separators=(',', ':')).encode()
  return _HEADER.pack(len(body)) + body


def write(fd: int, frame: bytes) -> None:
  """Writes all of the frame to the pipe."""
  view = memoryview(frame)
  while view:
    view = view[os.write(fd, view) :]


class Frames:
  """Cuts the bytes that come through a pipe into frames."""

  def __init__(self, fd: int):
    self._fd = fd
    self._buffer = bytearray()

  def read(self) -> list[Any] | None:
    """The frames completed by one read of the pipe (blocks if it is empty); None at its end."""
    chunk = os.read(self._fd, _CHUNK)
    if not chunk:
      return None
    self._buffer += chunk
    return list(self._cut())

  def _cut(self) -> Iterator[Any]:
    start, end = 0, len(self._buffer)
    while end - start >= _HEADER.size:
      (length,) = _HEADER.unpack_from(self._buffer, start)
      stop = start + _HEADER.size + length
      if stop > end:
        break
      yield json.loads(self._buffer[start + _HEADER.size : stop])
      start = stop
    del self._buffer[:start]


def problem_to_json(problem: Problem) -> dict[str, Any]:
  """The problem as a JSON object."""
  return {
    'id': problem.id,
    'task': problem.task,
    'prompt': problem.prompt,
    'answer': problem.answer,
    'meta': dict(problem.meta),
  }


def problem_from_json(value: dict[str, Any]) -> Problem:
  """The inverse of problem_to_json (tuples inside answer and meta come back as lists)."""
  prompt = value['prompt']
  return Problem(**{**value, 'prompt': prompt if isinstance(prompt, str) else tuple(prompt)})
