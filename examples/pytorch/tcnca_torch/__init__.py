"""The operations of tcnca in PyTorch. See README.md of this package."""
from .compiler import CompilerError
from .distributed import sequence_parallel, sum_gradients
from .mega import MegaLayer
from .modules import ChunkedAttention, ConvStack, Ema, TcncaLayer, conv_stack_from_conv1d, precompile
from .operators.attention import chunked_attention, chunked_attention_step, rotary_bias
from .operators.conv_stack import conv_stack, conv_stack_step
from .operators.ema import ema, ema_step
from .operators.gates import mix, reset, update
from .shapes import ChunkedAttentionShape, ConvStackShape, EmaShape, GatedFusionShape

__all__ = [
    "ChunkedAttention", "ChunkedAttentionShape", "CompilerError", "ConvStack", "ConvStackShape", "Ema", "EmaShape",
    "GatedFusionShape", "MegaLayer", "TcncaLayer", "chunked_attention", "chunked_attention_step", "conv_stack",
    "conv_stack_from_conv1d", "conv_stack_step", "ema", "ema_step", "mix", "precompile", "reset", "rotary_bias",
    "sequence_parallel", "sum_gradients", "update",
]
