"""Descriptions of operations: frozen dataclasses with the members of the C++ structs and their defaults.

`source(shape)` is an initializer in C++, as `to_string(shape)` of the library prints it. Operators take it as their
argument `shape`, because operators of PyTorch take strings and not objects; `parse` reads it.
"""
import dataclasses
import functools
import re

ENUMERATORS = {
    "activation": ("none", "relu", "silu", "gelu_erf", "gelu_tanh", "tanh"),
    "residual": ("none", "level", "block"),
    "parameter_type": ("element", "accumulate"),
    "direction": ("causal", "symmetric", "bidirectional"),
    "layout": ("batch_channels_length", "batch_length_channels"),
    "attention_function": ("softmax", "laplace", "relu2"),
}
LARGEST = 2**30  # of the integers of a shape: the library limits receptive fields to it
CHANNELS_FIRST, CHANNELS_LAST = ENUMERATORS["layout"]


def _enum(type_name, default):
    return dataclasses.field(default=default, metadata={"enum": type_name})


class Shape:
    """What all shapes have in common. Values are checked here, combinations of values where the shape is compiled."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, where = getattr(self, field.name), f"{type(self).__name__}.{field.name}"
            if "enum" in field.metadata:
                names = ENUMERATORS[field.metadata["enum"]]
                if value not in names:
                    raise ValueError(f"{where} is {value!r}, expected one of {', '.join(names)}")
            elif field.type is tuple:
                value = tuple(value)
                if len(value) > 16 or not all(type(v) is int and 0 < v <= LARGEST for v in value):
                    raise ValueError(f"{where} is {value!r}, expected at most 16 integers from 1 to {LARGEST}")
                object.__setattr__(self, field.name, value)
            elif type(value) is not field.type:
                raise ValueError(f"{where} is {value!r}, expected a value of type {field.type.__name__}")
            elif field.type is int and abs(value) > LARGEST:
                raise ValueError(f"{where} is {value!r}, expected at most {LARGEST}")
        object.__setattr__(self, "source", source(self))  # an attribute: torch.compile reads it as a constant

    def sizes(self, known, numbers):
        """Extents of arguments by letter (see kernels.Pass), from those that are known and the numbers of the call."""
        return {}

    def __str__(self):
        """What differs from the defaults."""
        changed = (f for f in dataclasses.fields(self) if getattr(self, f.name) != f.default)
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"

@dataclasses.dataclass(frozen=True)
class ConvStackShape(Shape):
    """tcnca::conv_stack_shape. `order` is set by the functions of this package from the strides of their input."""
    taps: int = 4
    depth: int = -1
    dilation_base: int = 2
    dilations: tuple = ()
    convolutions: int = 1
    blocks: int = 1
    act: str = _enum("activation", "none")
    residuals: str = _enum("residual", "none")
    post_activation: bool = False
    bias: bool = False
    skip: bool = False
    dir: str = _enum("direction", "causal")
    order: str = _enum("layout", CHANNELS_FIRST)
    weights: str = _enum("parameter_type", "element")

    @property
    def levels(self):
        return self.depth if self.depth != -1 else len(self.dilations) or 1

    @property
    def layers(self):
        return self.levels * self.convolutions * self.blocks

    @property
    def weight_sets(self):
        """The first extent of weight and bias."""
        return self.layers * (2 if self.dir == "bidirectional" else 1)

    def dilation(self, layer):
        level = layer // self.convolutions % self.levels
        return self.dilations[level] if self.dilations else self.dilation_base**level

    @property
    def receptive_field(self):
        return 1 + (self.taps - 1) * sum(self.dilation(i) for i in range(self.layers))

    def sizes(self, known, numbers):
        return {"w": self.weight_sets, "t": self.taps, "s": self.receptive_field - 1}


@dataclasses.dataclass(frozen=True)
class EmaShape(Shape):
    """tcnca::ema_shape. `order` is set by the functions of this package from the strides of their input."""
    states: int = 16
    dir: str = _enum("direction", "causal")
    skip: bool = True
    order: str = _enum("layout", CHANNELS_FIRST)

    @property
    def directions(self):
        return 2 if self.dir == "bidirectional" else 1

    def sizes(self, known, numbers):
        return {"r": self.directions * known["c"], "s": self.states}


@dataclasses.dataclass(frozen=True)
class GatedFusionShape(Shape):
    """tcnca::gated_fusion_shape."""
    update_gate: bool = True
    reset_gate: bool = True
    mixer_path: bool = True
    dropout: bool = False


@dataclasses.dataclass(frozen=True)
class ChunkedAttentionShape(Shape):
    """tcnca::chunked_attention_shape."""
    function: str = _enum("attention_function", "softmax")
    causal: bool = False
    bias: bool = False
    dropout: bool = False
    alibi: bool = False
    window: bool = False
    grouped: bool = False
    head_lengths: bool = False
    packed: bool = False

    def sizes(self, known, numbers):
        chunk = numbers["chunk"]
        return {"t": 2 * chunk - 1, "m": chunk} if chunk > 0 else {}


def source(shape):
    """An initializer of the shape in C++."""
    members = []
    for field in dataclasses.fields(shape):
        value = getattr(shape, field.name)
        if "enum" in field.metadata:
            value = f"tcnca::{field.metadata['enum']}::{value}"
        elif field.type is bool:
            value = str(value).lower()
        elif field.type is tuple:
            value = "{" + ", ".join(map(str, value)) + "}"
        members.append(f".{field.name} = {value}")
    return "{" + ", ".join(members) + "}"


_member = re.compile(r"\.(\w+) = (\{[^}]*\}|[^,}]*)")


@functools.cache
def parse(kind, text):
    """The shape of class `kind` whose source is `text`."""
    types = {field.name: field for field in dataclasses.fields(kind)}
    values = {}
    for name, value in _member.findall(text):
        field = types[name]
        if "enum" in field.metadata:
            values[name] = value.split("::")[-1]
        elif field.type is bool:
            values[name] = value == "true"
        elif field.type is tuple:
            values[name] = tuple(map(int, re.findall(r"\d+", value)))
        else:
            values[name] = int(value)
    shape = kind(**values)
    if source(shape) != text:
        raise ValueError(f"not the source of a {kind.__name__}: {text}")
    return shape
