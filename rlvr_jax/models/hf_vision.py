"""Qwen2.5-VL's part of a Hugging Face model directory: config.json's and the processor's keys."""

from collections.abc import Mapping
from typing import Any

from rlvr_jax.models.config import ModelConfig, VisionConfig

ARCHITECTURE = 'qwen2_5_vl'
# files that say what is done with pixels; the first that is there counts
PROCESSOR_FILES = ('preprocessor_config.json', 'processor_config.json')
# what a vision_config that leaves them out means (the defaults of HF's config class)
_DEFAULTS = {
  'depth': 32,
  'hidden_size': 3584,
  'hidden_act': 'silu',
  'intermediate_size': 3420,
  'num_heads': 16,
  'in_channels': 3,
  'patch_size': 14,
  'spatial_merge_size': 2,
  'temporal_patch_size': 2,
  'tokens_per_second': 4,
  'window_size': 112,
  'out_hidden_size': 3584,
  'fullatt_block_indexes': (7, 15, 23, 31),
}
_IDS = {
  'image_id': 'image_token_id',
  'video_id': 'video_token_id',
  'start_id': 'vision_start_token_id',
  'end_id': 'vision_end_token_id',
}
# without prefix, as the hub has them -> as newer versions of transformers write them
_PREFIXES = (('visual.', 'model.visual.'), ('model.', 'model.language_model.'))


def stored_name(name: str) -> str:
  """The hub's name of a tensor that may have transformers' newer one."""
  for ours, theirs in _PREFIXES:
    if name.startswith(theirs):
      return ours + name.removeprefix(theirs)
  return name


def decoder_part(config: Mapping[str, Any]) -> dict[str, Any]:
  """The decoder's keys of a config.json, flat, whether they stand apart (text_config) or not."""
  own = {k: v for k, v in config.items() if k not in ('text_config', 'vision_config')}
  inner = {k: v for k, v in (config.get('text_config') or {}).items() if v is not None}
  found = {**own, **inner, 'model_type': ARCHITECTURE}
  found['tie_word_embeddings'] = config.get('tie_word_embeddings', False)
  for key in ('rope_scaling', 'rope_parameters'):
    if found.get(key):
      rope = dict(found[key])
      for kind in ('type', 'rope_type'):
        if rope.get(kind) == 'mrope':
          rope[kind] = 'default'
      found[key] = rope
  found.setdefault('rope_theta', 1e6)
  return found


def parse_vision(
  config: Mapping[str, Any], decoder: Mapping[str, Any], processor: Mapping[str, Any], origin: str
) -> dict[str, Any]:
  """ModelConfig's vision and mrope from a whole config.json and the content of a processor's file.

  ValueError for what is missing or not computed here.
  """
  given = config.get('vision_config')
  if not isinstance(given, Mapping):
    raise ValueError(f'{origin}: {ARCHITECTURE} without a vision_config; fetch the file again')
  v = {**_DEFAULTS, **{k: x for k, x in given.items() if x is not None}}
  if v['hidden_act'] != 'silu':
    raise ValueError(f'{origin}: vision_config: hidden_act={v["hidden_act"]!r} (only silu)')
  wrong = [k for k in _DEFAULTS if type(v[k]) is not int and k[:6] not in ('hidden', 'fullat')]
  if wrong:
    raise ValueError(f'{origin}: vision_config: not an integer: {", ".join(wrong)}')
  rope = {**(decoder.get('rope_scaling') or {}), **(decoder.get('rope_parameters') or {})}
  sections = rope.get('mrope_section')
  if not isinstance(sections, list | tuple) or len(sections) != 3:
    raise ValueError(f'{origin}: rope_scaling has mrope_section={sections!r}, expected 3 integers')
  ids = {ours: config[key] for ours, key in _IDS.items() if key in config}
  vision = VisionConfig(
    embed_dim=v['hidden_size'],
    mlp_dim=v['intermediate_size'],
    num_layers=v['depth'],
    num_heads=v['num_heads'],
    out_dim=v['out_hidden_size'],
    full_layers=tuple(v['fullatt_block_indexes']),
    patch=v['patch_size'],
    temporal=v['temporal_patch_size'],
    merge=v['spatial_merge_size'],
    window=v['window_size'],
    channels=v['in_channels'],
    tokens_per_second=v['tokens_per_second'],
    **ids,
    **_pixel_rules(processor),
  )
  return {'vision': vision, 'mrope': tuple(sections)}


def _pixel_rules(processor: Mapping[str, Any]) -> dict[str, Any]:
  found = processor.get('image_processor', processor)
  size = found.get('size') or {}
  rules = {
    'min_pixels': found.get('min_pixels') or size.get('shortest_edge'),
    'max_pixels': found.get('max_pixels') or size.get('longest_edge'),
    'mean': found.get('image_mean') and tuple(found['image_mean']),
    'std': found.get('image_std') and tuple(found['image_std']),
  }
  return {key: value for key, value in rules.items() if value is not None}


def vision_json(config: ModelConfig) -> dict[str, Any]:
  """What config.json of such a model has beside the decoder's keys."""
  v = config.vision
  assert v is not None
  assert config.mrope is not None
  return {
    'rope_scaling': {'type': 'mrope', 'mrope_section': list(config.mrope)},
    'use_sliding_window': False,
    **{key: getattr(v, ours) for ours, key in _IDS.items()},
    'vision_config': {
      'model_type': ARCHITECTURE,
      'depth': v.num_layers,
      'hidden_size': v.embed_dim,
      'hidden_act': 'silu',
      'intermediate_size': v.mlp_dim,
      'num_heads': v.num_heads,
      'in_channels': v.channels,
      'in_chans': v.channels,
      'out_hidden_size': v.out_dim,
      'patch_size': v.patch,
      'spatial_patch_size': v.patch,
      'spatial_merge_size': v.merge,
      'temporal_patch_size': v.temporal,
      'tokens_per_second': v.tokens_per_second,
      'window_size': v.window,
      'fullatt_block_indexes': list(v.full_layers),
    },
  }


def processor_json(v: VisionConfig) -> dict[str, Any]:
  """The content of preprocessor_config.json."""
  return {
    'image_processor_type': 'Qwen2VLImageProcessor',
    'processor_class': 'Qwen2_5_VLProcessor',
    'min_pixels': v.min_pixels,
    'max_pixels': v.max_pixels,
    'size': {'shortest_edge': v.min_pixels, 'longest_edge': v.max_pixels},
    'patch_size': v.patch,
    'temporal_patch_size': v.temporal,
    'merge_size': v.merge,
    'image_mean': list(v.mean),
    'image_std': list(v.std),
  }
