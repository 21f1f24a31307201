"""Operations that know about lanes: drop-ins for any Flax model."""

from hpjax.ops.compiler import compiler_options
from hpjax.ops.conv import conv
from hpjax.ops.lowerings import lowering_names
from hpjax.ops.pool import max_pool

__all__ = ["compiler_options", "conv", "lowering_names", "max_pool"]
