"""The layer of MEGA, with the weights of its released code."""
from torch import nn

from .modules import TcncaLayer
from .shapes import EmaShape

# Parameters of a layer of the released code (MovingAverageGatedAttention of fairseq) and of TcncaLayer. The first name
# that a state has is used: those of the EMA are called delta, alpha, beta, gamma and omega in some versions.
NAMES = {
    "mixer.delta": ("move.damping_factor", "move.delta"),
    "mixer.alpha": ("move.decay_factor", "move.alpha"),
    "mixer.beta": ("move.ema_expansion_matrix", "move.beta"),
    "mixer.gamma": ("move.kernel_projection_matrix", "move.gamma"),
    "mixer.omega": ("move.residual_weight", "move.omega"),
    "values.weight": ("v_proj.weight",), "values.bias": ("v_proj.bias",),
    "product.weight": ("mx_proj.weight",), "product.bias": ("mx_proj.bias",),
    "candidate.weight": ("h_proj.weight",), "candidate.bias": ("h_proj.bias",),
    "gains": ("gamma",), "means": ("beta",),  # [2, key_dim]: of q and of k
    "norm.weight": ("norm.norm.weight", "norm.weight"), "norm.bias": ("norm.norm.bias", "norm.bias"),
}
SIMPLE = ("rel_pos_bias.rel_pos_bias",)
ROTARY = ("rel_pos_bias.alpha",), ("rel_pos_bias.beta", "rel_pos_bias.b_param")


class MegaLayer(TcncaLayer):
    """TcncaLayer with MEGA's EMA; `states` is the number of its states per channel."""

    def __init__(self, channels, value_dim, key_dim, chunk, states=16, causal=True, **options):
        mixer = EmaShape(states=states, dir="causal" if causal else "bidirectional")
        super().__init__(channels, value_dim, key_dim, chunk, mixer, causal=causal, **options)

    @classmethod
    def from_fairseq(cls, state_dict, chunk, causal=True, function="softmax", pre_norm=True, prefix="", **options):
        """A layer with the weights of a layer of MEGA's released code. The arguments are what its state_dict does not
        tell: chunk, causal, function (softmax, laplace, or relu2), pre_norm (normalize_before). prefix: what the names
        of the layer's parameters begin with, such as "encoder.layers.0.mega_layer.". The layer has a LayerNorm; layers
        with another norm, without its weights, or with names that are not known are errors. The released code cuts the
        EMA's kernel off after `truncation` positions, if that is set; this layer never does."""
        state = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
        unknown = set(state)

        def take(names, required=True):
            for name in names:
                if name in state:
                    unknown.discard(name)
                    return state[name]
            if required:
                raise ValueError(f"from_fairseq: the state has no {prefix}{names[0]}")

        known = {ours: take(names) for ours, names in NAMES.items()}
        for name in ("delta", "alpha", "beta"):  # [rows, states, 1] in the released code
            known[f"mixer.{name}"] = known[f"mixer.{name}"].flatten(1)
        for ours, both in (("gain", known.pop("gains")), ("mean", known.pop("means"))):
            known[f"{ours}_q"], known[f"{ours}_k"] = both
        bias, table = "rotary", take(SIMPLE, False)
        if table is not None:
            # b[n - 1 + j - i] of a table for n positions: its middle is that for a chunk.
            excess = table.numel() - (2 * chunk - 1)
            if excess < 0:
                raise ValueError(f"from_fairseq: chunk is {chunk}, expected at most {(table.numel() + 1) // 2}, the "
                                 "positions of rel_pos_bias")
            bias, known["attention.table"] = "simple", table.view(1, -1)[:, excess // 2:excess // 2 + 2 * chunk - 1]
        else:
            for name, names in zip("ab", ROTARY):
                known[f"attention.{name}"] = take(names).view(1, -1)
        ignored = ("_float_tensor", "num_batches_tracked")
        unknown = sorted(name for name in unknown if not name.endswith(ignored))
        if unknown:
            raise ValueError(f"from_fairseq: the state has parameters that this layer has not: {', '.join(unknown)}")
        channels, rows = len(known["mixer.omega"]), len(known["mixer.delta"])
        if rows != channels * (1 if causal else 2):
            raise ValueError(f"from_fairseq: the EMA has {rows} rows for {channels} channels, but causal is {causal}")
        layer = cls(channels, len(known["values.bias"]), len(known["gain_q"]), chunk, known["mixer.delta"].shape[1],
                    causal, function=function, bias=bias, norm=nn.LayerNorm, pre_norm=pre_norm, **options)
        layer.to(known["values.weight"]).load_state_dict(known)
        return layer
