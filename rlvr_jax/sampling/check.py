"""Items and settings that the engine cannot take are refused, by name, before they reach it."""

from collections.abc import Iterable

from rlvr_jax.models.config import VisionConfig
from rlvr_jax.models.images import images_of, rope_positions
from rlvr_jax.sampling.types import Item, Sampling

MAX_STOPS = 8


def check_sampling(sampling: Sampling, capacity: int) -> None:
  """ValueError naming the key and value of a sampling setting that is out of range."""
  s = sampling
  ranges = (
    ('temperature', s.temperature, s.temperature >= 0, 'at least 0 (0 is greedy)'),
    ('top_p', s.top_p, 0 < s.top_p <= 1, 'in (0, 1] (1 is off)'),
    ('top_k', s.top_k, s.top_k >= 0, 'at least 0 (0 is off)'),
    (
      'max_tokens',
      s.max_tokens,
      1 <= s.max_tokens <= capacity,
      f'between 1 and the completion capacity {capacity}',
    ),
    ('stop_ids', s.stop_ids, len(s.stop_ids) <= MAX_STOPS, f'at most {MAX_STOPS} ids'),
  )
  for name, value, good, rule in ranges:
    if not good:
      raise ValueError(f'sampling.{name}={value} must be {rule}')


def check_items(
  items: Iterable[Item],
  sampling: Sampling,
  *,
  vocabulary: int,
  capacity: int,
  vision: VisionConfig | None = None,
) -> None:
  """ValueError for an item whose prompt, limit or forced tokens do not fit.

  vocabulary and capacity (of a prompt) in tokens.
  """
  checked: set[tuple[int, ...]] = set()
  for item in items:
    prompt = item.prompt_ids
    if prompt not in checked:
      _check_prompt(prompt, item.problem, vocabulary, capacity)
      if not item.start:  # what a conversation goes on from holds completions, which are text
        _check_images(prompt, item.problem, vision)
      checked.add(prompt)
    if item.limit is not None and item.limit < 1:
      raise ValueError(f'limit={item.limit} for problem {item.problem} must be at least 1 token')
    if item.forced is None:
      continue
    if len(item.forced) > sampling.max_tokens:
      raise ValueError(
        f'{len(item.forced)} forced tokens for problem {item.problem}, but '
        f'sampling.max_tokens={sampling.max_tokens}'
      )
    if not all(0 <= token < vocabulary for token in item.forced):
      raise ValueError(
        f'forced tokens {item.forced} for problem {item.problem} leave the vocabulary of '
        f'{vocabulary}'
      )


def _check_prompt(prompt: tuple[int, ...], problem: int, vocabulary: int, capacity: int) -> None:
  if not 1 <= len(prompt) <= capacity:
    raise ValueError(
      f'prompt of problem {problem} has {len(prompt)} tokens, but the cache holds prompts '
      f'of 1 to sampling.prompt_capacity={capacity}; raise it or drop the problem'
    )
  if not 0 <= min(prompt) <= max(prompt) < vocabulary:
    raise ValueError(
      f'prompt of problem {problem} has token ids from {min(prompt)} to {max(prompt)}, '
      f"but the model's vocabulary has {vocabulary}: tokenizer and model do not belong together"
    )


def _check_images(prompt: tuple[int, ...], problem: int, vision: VisionConfig | None) -> None:
  pictures = images_of(prompt)
  if vision is None:
    if pictures:
      raise ValueError(
        f'prompt of problem {problem} has {len(pictures)} images, which this model does not see; '
        'name a model with a vision tower'
      )
    return
  try:
    rope_positions(prompt, [image.grid for image in pictures], vision)
  except ValueError as error:
    raise ValueError(f'prompt of problem {problem}: {error}') from error
  if prompt[-1] == vision.image_id:
    raise ValueError(f'prompt of problem {problem} ends with an image; text has to follow it')
