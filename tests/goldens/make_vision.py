"""Makes vision/NAME/{config.json,model.safetensors,golden.npz}: tiny Qwen2.5-VLs and HF's numbers.

  pip install -e '.[parity]'; python tests/goldens/make_vision.py

golden.npz, for each row r of ROWS: tokens_r i32[T], positions_r i32[3,T], after_r (the position of
the token that follows) and logits_r f32[T,V]; for its image number j: image_r_j u8[H,W,3]; over
all of its images tower_r (the tower's last layer, window by window) and merged_r; pixels_0
f32[patches, values] (HF's processor). HF computes every row alone and unpadded.

processor.npz: what HF's processor makes of the PNGs in SIZES: grid_k, values_k (its first and last
rows) and the sum.
"""

import io
import pathlib
import shutil

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

HERE = pathlib.Path(__file__).parent / 'vision'
IMAGE, VIDEO, START, END = 100, 101, 102, 103
TEXT = {
  'vocab_size': 120,
  'num_hidden_layers': 2,
  'max_position_embeddings': 512,
  'rms_norm_eps': 1e-6,
  'bos_token_id': 1,
  'eos_token_id': 2,
}
VISION = {'patch_size': 4, 'spatial_merge_size': 2, 'temporal_patch_size': 2}
IDS = {
  'image_token_id': IMAGE,
  'video_token_id': VIDEO,
  'vision_start_token_id': START,
  'vision_end_token_id': END,
}
# text lengths and, between them, images (height, width in pixels, multiples of 8)
ROWS = (
  (5, (32, 40), 7),  # one image
  (3, (24, 24), 2, (56, 16), 4, (8, 64), 6),  # several of unequal sizes
  (0, (16, 16), 1, (40, 72), 0),  # images at both ends
  (19,),  # text alone
  (8,),
)
SIZES = ((300, 417), (20, 31), (56, 56), (1000, 90), (700, 701))


def configs():
  tied = Qwen2_5_VLConfig(
    text_config={
      **TEXT,
      'hidden_size': 32,
      'intermediate_size': 56,
      'num_attention_heads': 4,
      'num_key_value_heads': 2,
      'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e6, 'mrope_section': [2, 1, 1]},
      'tie_word_embeddings': True,
    },
    vision_config={
      **VISION,
      'depth': 3,
      'hidden_size': 32,
      'intermediate_size': 44,
      'num_heads': 2,
      'out_hidden_size': 32,
      'window_size': 16,
      'fullatt_block_indexes': [1],
    },
    **IDS,
    tie_word_embeddings=True,
  )
  untied = Qwen2_5_VLConfig(
    text_config={
      **TEXT,
      'hidden_size': 48,
      'intermediate_size': 40,
      'num_attention_heads': 6,
      'num_key_value_heads': 1,
      'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e4, 'mrope_section': [1, 1, 2]},
    },
    vision_config={
      **VISION,
      'depth': 4,
      'hidden_size': 24,
      'intermediate_size': 36,
      'num_heads': 3,
      'out_hidden_size': 48,
      'window_size': 24,
      'fullatt_block_indexes': [0, 3],
    },
    **IDS,
    tie_word_embeddings=False,
  )
  return {'tied': tied, 'untied': untied}


def make_row(spec, rng):
  """(tokens, pictures) of a row of ROWS."""
  tokens, pictures = [], []
  for part in spec:
    if isinstance(part, int):
      tokens += rng.integers(3, 100, part).tolist()
      continue
    height, width = part
    pictures.append(rng.integers(0, 256, (height, width, 3), np.uint8))
    tokens += [START, *[IMAGE] * (height * width // 64), END]
  return tokens, pictures


def randomize(model, generator):
  """Large enough that attention is far from uniform."""
  for name, parameter in model.named_parameters():
    noise = torch.randn(parameter.shape, generator=generator)
    if name.endswith('bias'):
      parameter.data = 0.5 * noise
    elif parameter.ndim == 1:
      parameter.data = 1 + 0.3 * noise
    elif 'embed_tokens' in name:
      parameter.data = noise
    else:
      parameter.data = 1.2 * noise / parameter[0].numel() ** 0.5
  model.tie_weights()


@torch.no_grad()
def golden(model, rng):
  found = {}
  processor = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, temporal_patch_size=2)
  for r, spec in enumerate(ROWS):
    tokens, pictures = make_row(spec, rng)
    ids = torch.tensor([tokens])
    found[f'tokens_{r}'] = np.array(tokens, np.int32)
    if not pictures:
      found[f'logits_{r}'] = model(ids).logits[0].numpy()
      continue
    made = [processor([p], do_resize=False, return_tensors='np') for p in pictures]
    for j, (picture, one) in enumerate(zip(pictures, made, strict=True)):
      found[f'image_{r}_{j}'] = picture
      if r == 0:
        found['pixels_0'] = one['pixel_values']
    pixels = torch.tensor(np.concatenate([one['pixel_values'] for one in made]))
    grids = torch.tensor(np.concatenate([one['image_grid_thw'] for one in made]))
    types = (ids == IMAGE).int()
    seen = model.model.visual(pixels, grid_thw=grids)
    found[f'tower_{r}'] = seen.last_hidden_state.numpy()
    found[f'merged_{r}'] = seen.pooler_output.numpy()
    positions, delta = model.model.get_rope_index(ids, types, image_grid_thw=grids)
    found[f'positions_{r}'] = positions[:, 0].numpy().astype(np.int32)
    found[f'after_{r}'] = np.int32(delta.item() + len(tokens))
    found[f'logits_{r}'] = (
      model(ids, pixel_values=pixels, image_grid_thw=grids, mm_token_type_ids=types)
      .logits[0]
      .numpy()
    )
  return found


def processed():
  """HF's processor with the model's own rules on smooth pictures of all kinds of sizes."""
  found = {}
  processor = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=100_352)
  for k, (height, width) in enumerate(SIZES):
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x % 256, y % 256, (3 * x + 5 * y) % 256], 2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, 'PNG')
    out = processor([Image.open(file)], return_tensors='np')
    found[f'png_{k}'] = np.frombuffer(file.getvalue(), np.uint8)
    found[f'grid_{k}'] = out['image_grid_thw'][0]
    found[f'values_{k}'] = out['pixel_values'][[0, 7, -1]]
    found[f'sum_{k}'] = out['pixel_values'].astype(np.float64).sum(1)
  return found


def main():
  shutil.rmtree(HERE, ignore_errors=True)
  for seed, (name, config) in enumerate(configs().items()):
    generator = torch.Generator().manual_seed(seed)
    config._attn_implementation = 'eager'
    model = Qwen2_5_VLForConditionalGeneration(config).float().eval()
    randomize(model, generator)
    found = golden(model, np.random.default_rng(seed))
    model.save_pretrained(HERE / name)
    np.savez_compressed(HERE / name / 'golden.npz', **found)
    print(
      name, {k: f'{abs(v).max():.1f}' for k, v in found.items() if k[:3] in ('log', 'tow', 'mer')}
    )
  np.savez_compressed(HERE / 'processor.npz', **processed())


if __name__ == '__main__':
  main()
