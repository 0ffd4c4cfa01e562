"""JAX's interpreter of TPU kernels on the CPU, taught what tokamax's attention needs beyond it.

The interpreter of jax 0.12 knows refs that are indexed, not refs that are bitcast or reshaped, and
takes an empty copy at the end of a buffer for an access out of bounds. Both are added here, to its
three functions that touch memory; everything else, bounds checks included, is its own.
"""

import contextlib
import functools

import jax
import numpy as np


def _bitcast(x, dtype):
  """As on a TPU: narrow elements pack along the second minor axis, the first into the low bits."""
  dtype = np.dtype(dtype)
  *batch, n, lanes = x.shape
  if dtype.itemsize >= x.dtype.itemsize:
    ratio = dtype.itemsize // x.dtype.itemsize
    x = np.swapaxes(x.reshape(*batch, n // ratio, ratio, lanes), -1, -2)
    return np.ascontiguousarray(x).view(dtype)[..., 0]
  ratio = x.dtype.itemsize // dtype.itemsize
  x = np.swapaxes(np.ascontiguousarray(x)[..., None].view(dtype), -1, -2)
  return np.ascontiguousarray(x).reshape(*batch, n * ratio, lanes)


def _index(transform):
  def one(i):
    if not hasattr(i, 'start'):
      return int(i)
    start, size, stride = int(i.start), int(i.size), int(i.stride)
    return slice(start, start + size * stride, stride)

  return tuple(one(i) for i in transform.indices)


def _is_a(transform, kind):
  return type(transform).__name__ == f'{kind}Transform'


def _view(x, transforms):
  for t in transforms:
    if _is_a(t, 'Bitcast'):
      x = _bitcast(x, t.dtype)
    elif _is_a(t, 'Reshape'):
      x = x.reshape(t.shape)
    else:
      x = x[_index(t)]
  return x


def _replace(x, transforms, value):
  """x with the view of it replaced by value."""
  if not transforms:
    return np.asarray(value).reshape(x.shape)
  t, *rest = transforms
  if _is_a(t, 'Bitcast'):
    return _bitcast(_replace(_bitcast(x, t.dtype), rest, value), x.dtype)
  if _is_a(t, 'Reshape'):
    return _replace(x.reshape(t.shape), rest, value).reshape(x.shape)
  x = x.copy()
  x[_index(t)] = _replace(x[_index(t)], rest, value)
  return x


def _is_ours(transforms):
  def empty(t):
    return any(isinstance(i, slice) and i.start == i.stop for i in _index(t))

  return any(_is_a(t, 'Bitcast') or _is_a(t, 'Reshape') or empty(t) for t in transforms)


@contextlib.contextmanager
def tpu_interpreter(device_kind: str = 'TPU v5 lite'):
  """Traces and runs TPU kernels on the CPU as for one core of that device."""
  from jax._src.pallas.mosaic.interpret import interpret_pallas_call as jaxs
  from jax.experimental.pallas import tpu as pltpu
  from jax.sharding import AbstractDevice, AbstractMesh, AxisType

  own = {name: getattr(jaxs, name) for name in ('get', 'store', 'swap')}
  get, store, swap = (f.__wrapped__ for f in own.values())

  def new_get(token, device, core, space, buffer, transforms, *args, **kwargs):
    if not _is_ours(transforms):
      return get(token, device, core, space, buffer, transforms, *args, **kwargs)
    return token, _view(get(token, device, core, space, buffer, ())[1], transforms)

  def new_store(token, device, core, space, buffer, transforms, value, *args, **kwargs):
    if not _is_ours(transforms):
      return store(token, device, core, space, buffer, transforms, value, *args, **kwargs)
    whole = get(token, device, core, space, buffer, ())[1]
    return store(token, device, core, space, buffer, (), _replace(whole, transforms, value))

  def new_swap(token, device, core, space, buffer, transforms, value, mask, **kwargs):
    if not _is_ours(transforms):
      return swap(token, device, core, space, buffer, transforms, value, mask, **kwargs)
    assert mask is None
    whole = get(token, device, core, space, buffer, ())[1]
    token = store(token, device, core, space, buffer, (), _replace(whole, transforms, value))
    return token, _view(whole, transforms)

  mesh = AbstractMesh(
    (1,),
    ('x',),
    axis_types=(AxisType.Auto,),
    abstract_device=AbstractDevice(device_kind=device_kind, num_cores=1, platform='tpu'),
  )
  # uninitialised memory is NaN, so that whatever the kernel reads too much shows
  params = pltpu.InterpretParams(dma_execution_mode='eager', uninitialized_memory='nan')
  try:
    for name, new in zip(own, (new_get, new_store, new_swap), strict=True):
      setattr(jaxs, name, functools.wraps(new)(jaxs.fail_on_exception(new)))
    with jax.sharding.use_abstract_mesh(mesh), pltpu.force_tpu_interpret_mode(params):
      yield
  finally:
    for name, f in own.items():
      setattr(jaxs, name, f)
