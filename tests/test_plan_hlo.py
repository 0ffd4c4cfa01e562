"""Operations and messages read from HLO: those of programs whose counts are known on paper."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rlvr_jax import plan_hlo, sharding
from rlvr_jax.plan_hlo import Moved

MESH = {'data': 2, 'fsdp': 2, 'tensor': 2}


def cost(function, *args, mesh=MESH, **options):
  text = jax.jit(function).lower(*args).compile().as_text()
  assert text is not None
  return plan_hlo.cost(plan_hlo.parse(text), mesh, **options)


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh(2, 2, 2)


def test_products_in_loops_count_as_often_as_they_run():
  w = jnp.ones((5, 7, 7))

  def looped(x, w):
    def layer(x, w):
      x = jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ w), x)
      return x, None

    return jax.lax.scan(layer, x, w)[0]

  assert cost(looped, jnp.ones((11, 7)), w).flops == 5 * 3 * 2 * 11 * 7 * 7


def test_a_loop_that_only_the_run_ends_takes_the_number_it_is_given():
  def looped(x, n):
    def body(i, x):
      rest = jax.lax.while_loop(lambda y: jnp.sum(y) < n, lambda y: jnp.tanh(y @ y), x)
      return rest @ x

    return jax.lax.fori_loop(0, n, body, x)

  args = jnp.ones((6, 6)), jnp.int32(3)
  one = 2 * 6**3
  assert cost(looped, *args).flops == 2 * one
  assert cost(looped, *args, outer=4, inner=10).flops == 4 * (one + 10 * one)
  assert cost(looped, *args, outer=0).flops == 0


def test_messages_are_those_of_rings_by_axis(mesh):
  n = 1024

  def over(f, spec_in, spec_out):
    f = jax.shard_map(f, mesh=mesh, in_specs=spec_in, out_specs=spec_out, check_vma=False)
    return cost(f, jax.ShapeDtypeStruct((n,), jnp.float32, sharding=NamedSharding(mesh, spec_in)))

  gather = over(lambda x: jax.lax.all_gather(x, 'fsdp', tiled=True), P('fsdp'), P())
  assert gather.sent == {Moved('all-gather', 'fsdp'): 4 * n / 2}
  total = over(lambda x: jax.lax.psum(x, ('data', 'tensor')), P(), P())
  assert total.sent == {Moved('all-reduce', 'data+tensor'): 2 * 4 * n * 3 / 4}
  scatter = over(lambda x: jax.lax.psum_scatter(x, 'tensor', tiled=True), P(), P('tensor'))
  assert sum(scatter.sent.values()) == 4 * n / 2
  assert {moved.axes for moved in scatter.sent} == {'tensor'}
  turned = over(lambda x: jax.lax.ppermute(x, 'data', [(0, 1), (1, 0)]), P('data'), P('data'))
  assert turned.sent == {Moved('collective-permute', 'data'): 4 * n / 2}

  def many(x):
    return jax.lax.fori_loop(0, 6, lambda _, x: jax.lax.psum(x, 'data') / 2, x)

  assert over(many, P(), P()).times == {Moved('all-reduce', 'data'): 6}


# what TPU compilers write and CPU's does not
TPU = """HloModule jit_f, is_scheduled=true

%fused_computation.1 (param_0.1: bf16[4,8], param_1.1: bf16[8,8]) -> bf16[8,8] {
  %param_0.1 = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[8,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%param_0.1), channel_id=7, replica_groups=[4,2]<=[8], dimensions={0}, use_global_device_ids=true
}

%async_collective_fusion.2 (param_0.2: bf16[4,8], param_1.2: bf16[8,8]) -> bf16[8,8] {
  %param_0.2 = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.2 = bf16[8,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%param_0.2), channel_id=7, replica_groups=[4,2]<=[8], dimensions={0}, use_global_device_ids=true
  %param_1.2 = bf16[8,8]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.2 = bf16[8,8]{1,0:T(8,128)(2,1)} convolution(%param_1.2, %param_1.2), dim_labels=bf_io->bf
}

%body (p.1: (u32[], bf16[4,8], bf16[8,8])) -> (u32[], bf16[4,8], bf16[8,8]) {
  %p.1 = (u32[]{:T(128)}, bf16[4,8]{1,0:T(8,128)(2,1)}, /*index=2*/bf16[8,8]{1,0:T(8,128)(2,1)}) parameter(0)
  %i.1 = u32[]{:T(128)} get-tuple-element(%p.1), index=0
  %one = u32[]{:T(128)} constant(2)
  %next = u32[]{:T(128)} add(%i.1, %one)
  %x.1 = bf16[4,8]{1,0:T(8,128)(2,1)} get-tuple-element(%p.1), index=1
  %y.1 = bf16[8,8]{1,0:T(8,128)(2,1)} get-tuple-element(%p.1), index=2
  %fusion.2 = bf16[8,8]{1,0:T(8,128)(2,1)} fusion(%x.1, %y.1), kind=kOutput, calls=%async_collective_fusion.2
  ROOT %out.1 = (u32[]{:T(128)}, bf16[4,8]{1,0:T(8,128)(2,1)}, bf16[8,8]{1,0:T(8,128)(2,1)}) tuple(%next, %x.1, %fusion.2)
}

%condition (p.2: (u32[], bf16[4,8], bf16[8,8])) -> pred[] {
  %limit = u32[]{:T(128)} constant(9)
  %p.2 = (u32[]{:T(128)}, bf16[4,8]{1,0:T(8,128)(2,1)}, bf16[8,8]{1,0:T(8,128)(2,1)}) parameter(0)
  %i.2 = u32[]{:T(128)} get-tuple-element(%p.2), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.2, %limit), direction=LT
}

ENTRY %main (a.1: bf16[4,8], b.1: bf16[8,8]) -> bf16[8,8] {
  %a.1 = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  %b.1 = bf16[8,8]{1,0:T(8,128)(2,1)} parameter(1)
  %zero = u32[]{:T(128)} constant(1)
  %fusion.1 = bf16[8,8]{1,0:T(8,128)(2,1)} fusion(%a.1, %b.1), kind=kLoop, calls=%fused_computation.1
  %init = (u32[]{:T(128)}, bf16[4,8]{1,0:T(8,128)(2,1)}, bf16[8,8]{1,0:T(8,128)(2,1)}) tuple(%zero, %a.1, %b.1)
  %loop = (u32[]{:T(128)}, bf16[4,8]{1,0:T(8,128)(2,1)}, bf16[8,8]{1,0:T(8,128)(2,1)}) while(%init), condition=%condition, body=%body
  %mine = bf16[4,8]{1,0:T(8,128)(2,1)} all-reduce(%a.1), channel_id=9, replica_groups=mesh['axis_0'=4,'axis_1'=2,'axis_2'=1] {'axis_0':(1)2,'axis_2'}, use_global_device_ids=true, to_apply=%add
  %heads = bf16[12,7,6]{2,0,1:T(8,128)(2,1)} convolution(%q, %w), window={size=7x1 pad=6_6x0_0 rhs_reversal=1x0}, dim_labels=b1f0_0o1i->b0f
  ROOT %done = bf16[8,8]{1,0:T(8,128)(2,1)} get-tuple-element(%loop), index=2
}
"""  # noqa: E501


def test_what_tpu_compilers_write():
  text = TPU.replace('%heads =', '%q = bf16[12,1,3,1]{0} parameter(2)\n  %w = bf16[7,6,1,3]{0} '
                     'parameter(3)\n  %heads =')  # fmt: skip
  found = plan_hlo.cost(plan_hlo.parse(text), MESH)
  # turns 1, 3, 5, 7 of the loop; of the second product each place of 7 meets the one input
  assert found.flops == 4 * 2 * 8**3 + 2 * 12 * 7 * 6 * 3
  # the gather that goes on in the loop is one; the sum is over the outer half of an axis of four
  assert found.sent == {
    Moved('all-gather', 'tensor'): 4 * 8 * 2,
    Moved('all-reduce', 'data'): 4 * 8 * 2,
  }
  assert found.times == dict.fromkeys(found.sent, 1.0)


def test_a_text_without_an_entry_is_refused():
  with pytest.raises(ValueError, match='no HLO module'):
    plan_hlo.parse('nothing')
