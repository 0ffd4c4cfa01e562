"""Groups, and what a run knows of its past, as JSON: the host state of a checkpoint."""

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlvr_jax.config import Config
from rlvr_jax.eval.run import Scored
from rlvr_jax.rl import solved as solved_lib
from rlvr_jax.rl.collect import Past, Source
from rlvr_jax.rl.draws import Group
from rlvr_jax.sampling.types import Completion, Turns
from rlvr_jax.tasks.problem import Verdict

PER_TOKEN = (
  'logprobs',
  'entropies',
  'truncated_logprobs',
)  # of a completion, the latter two if asked


def _packed(x: np.ndarray) -> str:
  return base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()


def to_json(queue: Sequence[Group]) -> list[dict[str, Any]]:
  """A queue for the host state of a checkpoint."""
  return [
    {
      'index': group.index,
      'visit': group.visit,
      'scored': [
        {
          'sample': s.completion.item.sample,
          **({'visit': v} if (v := s.completion.item.visit) != group.visit else {}),
          'tokens': _packed(s.completion.tokens.astype('<i4')),
          **{
            name: _packed(values.astype('<f4'))
            for name in PER_TOKEN
            if (values := getattr(s.completion, name)) is not None
          },
          'truncated': bool(s.completion.truncated),
          'text': s.text,
          'verdict': dataclasses.asdict(s.verdict),
          **({'parts': dict(s.parts)} if s.parts else {}),
          **({'turns': _turns_to_json(s.completion.turns)} if s.completion.turns else {}),
        }
        for s in group.scored
      ],
    }
    for group in queue
  ]


def _turns_to_json(turns: Turns) -> dict[str, Any]:
  return dataclasses.asdict(turns) | {'sampled': _packed(turns.sampled.astype(np.uint8))}


def _turns_from_json(found: dict[str, Any] | None) -> Turns | None:
  if found is None:
    return None
  sampled = np.frombuffer(base64.b64decode(found['sampled']), np.uint8).astype(bool)
  return Turns(**{**found, 'sampled': sampled})


def from_json(source: Source, found: Sequence[dict[str, Any]]) -> list[Group]:
  """What to_json wrote, over the same problems."""

  def scored(group: dict[str, Any], one: dict[str, Any]) -> Scored:
    completion = Completion(
      item=source.item(group['index'], one.get('visit', group['visit']), one['sample']),
      tokens=np.frombuffer(base64.b64decode(one['tokens']), '<i4').astype(np.int32),
      truncated=one['truncated'],
      **{
        name: np.frombuffer(base64.b64decode(one[name]), '<f4').astype(np.float32)
        for name in PER_TOKEN
        if name in one
      },
      turns=_turns_from_json(one.get('turns')),
    )
    return Scored(completion, one['text'], Verdict(**one['verdict']), one.get('parts', {}))

  return [
    Group(group['index'], group['visit'], [scored(group, one) for one in group['scored']])
    for group in found
  ]


def past_to_json(config: Config, past: Past) -> dict[str, Any]:
  """The past for a checkpoint; nothing where no key of the config asks for it."""
  if not config.train.replay and config.train.curriculum == 'none':
    return {}
  return {'solved': solved_lib.to_json(past.solved), 'stored': to_json(past.stored)}


def past_from_json(source: Source, found: dict[str, Any]) -> Past:
  """What past_to_json wrote, over the same problems."""
  solved = solved_lib.from_json(len(source.problems), found.get('solved', ()))
  return Past(solved, from_json(source, found.get('stored', ())))
