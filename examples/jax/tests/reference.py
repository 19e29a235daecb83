"""The operations in plain JAX, to compare with."""
import math

import jax
import jax.numpy as jnp

ACTIVATIONS = {"none": lambda a: a, "relu": jax.nn.relu, "silu": jax.nn.silu, "tanh": jnp.tanh,
               "gelu_erf": lambda a: jax.nn.gelu(a, approximate=False), "gelu_tanh": jax.nn.gelu}


def conv_stack(x, weight, bias, omega, shape):
    """A chain of depthwise convolutions of [batch, channels, length]; residuals around single convolutions, causal or
    symmetric."""
    a, channels = x, x.shape[1]
    for i in range(shape.layers):
        dilation = shape.dilation(i)
        history = (shape.taps - 1) * dilation
        ahead = history // 2 if shape.dir == "symmetric" else 0
        kernel = weight[i][::-1].T[:, None]  # oldest tap first
        z = jax.lax.conv_general_dilated(a, kernel, (1,), [(history - ahead, ahead)], rhs_dilation=(dilation,),
                                         feature_group_count=channels)
        z = ACTIVATIONS[shape.act](z if bias is None else z + bias[i][:, None])
        a = a + z if shape.residuals == "level" else z
    return a if omega is None else jax.nn.silu(a + omega[:, None] * x)


def ema(x, delta, alpha, beta, gamma, omega, shape):
    """The convolution with the kernel of the EMA, by FFT; a bidirectional EMA adds the anti-causal one."""
    length = x.shape[2]
    p = jax.nn.sigmoid(delta)
    powers = (1 - p * jax.nn.sigmoid(alpha))[..., None] ** jnp.arange(length)
    kernel = ((gamma * p * beta)[..., None] * powers).sum(1) / math.sqrt(shape.states)
    causal, *anti_causal = jnp.split(kernel, shape.directions)

    def convolve(s, k):
        return jnp.fft.irfft(jnp.fft.rfft(s, 2 * length) * jnp.fft.rfft(k, 2 * length), 2 * length)[..., :length]
    y = convolve(x, causal)
    for k in anti_causal:
        y = y + convolve(x[..., ::-1], k)[..., ::-1]
    return y if omega is None else jax.nn.silu(y + omega[:, None] * x)


def attention(q, k, v, bias, chunk, function, causal):
    """Attention of each chunk. The length is a multiple of the chunk."""
    batch, heads, length, key_dim = q.shape
    q, k, v = (t.reshape(batch, heads, -1, chunk, t.shape[3]) for t in (q, k, v))
    seen, table = _mask_and_table(bias, heads, chunk, causal, q.dtype)
    scores = q @ k.swapaxes(-1, -2)
    if function == "softmax":
        scores = scores * key_dim**-0.5 + table[None, :, None]
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
    else:
        scores = scores / seen.sum(1, keepdims=True) + table[None, :, None]
        deviation = math.sqrt(1 / (2 * math.pi))
        weights = (1 + jax.scipy.special.erf((scores - math.sqrt(1 / 2)) / deviation)) / 2
    return ((weights * seen) @ v).reshape(batch, heads, length, v.shape[-1])


def dot_product_attention(q, k, v, bias, chunk, causal):
    """Softmax attention of each chunk by jax.nn.dot_product_attention, whose softmax is in fp32."""
    batch, heads, length, key_dim = q.shape
    longer = v.shape[-1] - key_dim  # it wants keys of the length of values
    q, k, v = (t.reshape(batch, heads, -1, chunk, t.shape[3]).transpose(0, 2, 3, 1, 4) for t in (q, k, v))
    q, k, v = (t.reshape(-1, chunk, heads, t.shape[4]) for t in (q, k, v))
    q, k = (jnp.pad(t, ((0, 0), (0, 0), (0, 0), (0, longer))) for t in (q, k))
    seen, table = _mask_and_table(bias, heads, chunk, causal, q.dtype)
    o = jax.nn.dot_product_attention(q, k, v, bias=table[None], mask=seen[None, None], scale=key_dim**-0.5)
    return o.reshape(batch, -1, chunk, heads, v.shape[3]).transpose(0, 3, 1, 2, 4).reshape(batch, heads, length, -1)


def _mask_and_table(bias, heads, chunk, causal, dtype):
    i, j = jnp.arange(chunk)[:, None], jnp.arange(chunk)
    seen = j <= i if causal else jnp.ones((chunk, chunk), bool)
    return seen, jnp.zeros((heads, chunk, chunk), dtype) if bias is None else bias[:, chunk - 1 + j - i]


def rotary_bias(a, b, chunk):
    """bias[chunk - 1 + j - i] from MEGA's rotary form."""
    (a1, a2), (b1, b2) = jnp.split(a, 2, 1), jnp.split(b, 2, 1)
    theta = 10000.0 ** (-2 * jnp.arange(a1.shape[1]) / a.shape[1])
    angle = jnp.arange(chunk - 1, -chunk, -1)[:, None] * theta  # i - j
    cosine, sine = (a1 * b1 + a2 * b2)[:, None], (a1 * b2 - a2 * b1)[:, None]
    return (cosine * jnp.cos(angle) + sine * jnp.sin(angle)).sum(-1)


def mix(z, gq, mq, gk, mk):
    return jax.nn.silu(z) * gq + mq, jax.nn.silu(z) * gk + mk


def reset(o, r):
    return o * jax.nn.silu(r)


def update(h, x, u, hx):
    h = jax.nn.silu(h if hx is None else hx + h)
    if u is None:
        return h if hx is None else x + h
    return x + jax.nn.sigmoid(u) * (h - x)
