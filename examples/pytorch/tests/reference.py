"""The operations in plain PyTorch, to compare with."""
import math

import torch
import torch.nn.functional as F

ACTIVATIONS = {"none": lambda a: a, "relu": F.relu, "silu": F.silu, "gelu_erf": F.gelu, "tanh": torch.tanh,
               "gelu_tanh": lambda a: F.gelu(a, approximate="tanh")}


def conv_stack(x, weight, bias, omega, shape):
    """A chain of conv1d; residuals around single convolutions, causal or symmetric."""
    a, channels = x, x.shape[1]
    for i in range(shape.layers):
        dilation = shape.dilation(i)
        history = (shape.taps - 1) * dilation
        ahead = history // 2 if shape.dir == "symmetric" else 0
        kernel = weight[i].flip(0).t().unsqueeze(1)  # PyTorch stores the oldest tap first
        z = F.conv1d(F.pad(a, (history - ahead, ahead)), kernel, None if bias is None else bias[i], dilation=dilation,
                     groups=channels)
        z = ACTIVATIONS[shape.act](z)
        a = a + z if shape.residuals == "level" else z
    return a if omega is None else F.silu(a + omega[:, None] * x)


def ema(x, delta, alpha, beta, gamma, omega, shape):
    """The convolution with the kernel of the EMA, by FFT; a bidirectional EMA adds the anti-causal one."""
    length = x.shape[2]
    p = torch.sigmoid(delta)
    powers = (1 - p * torch.sigmoid(alpha)).unsqueeze(-1) ** torch.arange(length, dtype=x.dtype)
    kernel = ((gamma * p * beta).unsqueeze(-1) * powers).sum(1) / math.sqrt(shape.states)
    causal, *anti_causal = kernel.chunk(shape.directions)

    def convolve(s, k):
        return torch.fft.irfft(torch.fft.rfft(s, 2 * length) * torch.fft.rfft(k, 2 * length), 2 * length)[..., :length]
    y = convolve(x, causal)
    for k in anti_causal:
        y = y + convolve(x.flip(2), k).flip(2)
    return y if omega is None else F.silu(y + omega[:, None] * x)


def attention(q, k, v, bias, chunk, function, causal):
    """Attention of each chunk; softmax by scaled_dot_product_attention. The length is a multiple of the chunk."""
    q, k, v = (t.unflatten(2, (-1, chunk)) for t in (q, k, v))
    i, j = torch.arange(chunk)[:, None], torch.arange(chunk)
    seen = j <= i if causal else torch.ones(chunk, chunk, dtype=torch.bool)
    table = 0 if bias is None else bias[:, chunk - 1 + j - i][None, :, None]
    if function == "softmax":
        mask = torch.zeros(chunk, chunk, dtype=q.dtype).masked_fill(~seen, -math.inf) + table
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).flatten(2, 3)
    scores = q @ k.transpose(-1, -2) / seen.sum(1, keepdim=True) + table
    if function == "laplace":
        weights = (1 + torch.erf((scores - math.sqrt(1 / 2)) / math.sqrt(1 / (2 * math.pi)))) / 2
    else:
        weights = F.relu(scores).square()
    return ((weights * seen) @ v).flatten(2, 3)


def rotary_bias(a, b, chunk):
    """bias[chunk - 1 + j - i] from MEGA's rotary form."""
    (a1, a2), (b1, b2) = a.chunk(2, 1), b.chunk(2, 1)
    theta = 10000 ** (-2 * torch.arange(a1.shape[1], dtype=a.dtype) / a.shape[1])
    angle = torch.arange(chunk - 1, -chunk, -1, dtype=a.dtype)[:, None] * theta  # i - j
    cosine, sine = (a1 * b1 + a2 * b2)[:, None], (a1 * b2 - a2 * b1)[:, None]
    return (cosine * angle.cos() + sine * angle.sin()).sum(-1)
