"""The operations of tcnca in JAX. See README.md of this package."""
from .attention import chunked_attention, chunked_attention_step, rotary_bias
from .conv_stack import conv_stack, conv_stack_step
from .ema import ema, ema_step
from .gates import mix, reset, update
from .layer import TcncaLayer
from .shared.compiler import CompilerError
from .shared.shapes import (CHANNELS_FIRST, CHANNELS_LAST, ChunkedAttentionShape, ConvStackShape, EmaShape,
                            GatedFusionShape)

__all__ = [
    "CHANNELS_FIRST", "CHANNELS_LAST", "ChunkedAttentionShape", "CompilerError", "ConvStackShape", "EmaShape",
    "GatedFusionShape", "TcncaLayer", "chunked_attention", "chunked_attention_step", "conv_stack", "conv_stack_step",
    "ema", "ema_step", "mix", "reset", "rotary_bias", "update",
]
