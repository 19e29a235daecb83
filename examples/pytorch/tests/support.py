"""What several tests share."""
import functools
import unittest

import torch


@functools.cache
def why_no_inductor():
    """Why torch.compile does not work on this machine, or ""."""
    try:
        x = torch.ones(3)
        torch.compile(lambda t: (t + 1).sin(), fullgraph=True)(x)
        return ""
    except Exception as error:  # the compiler, Python.h or triton may be missing
        return f"torch.compile does not work here: {type(error).__name__}"


class TestCase(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(1)

    def close(self, actual, expected, relative, absolute=0.0):
        """|actual - expected| <= relative max |expected| + absolute."""
        expected = expected.to(torch.float64)
        self.assertEqual(actual.shape, expected.shape)
        if expected.numel() == 0:
            return
        error, scale = (actual.to(torch.float64) - expected).abs().max().item(), expected.abs().max().item()
        self.assertLessEqual(error, relative * scale + absolute)

    def equal(self, actual, expected):
        self.assertTrue(torch.equal(actual, expected))

    def compiled(self, function):
        if why_no_inductor():
            self.skipTest(why_no_inductor())
        return torch.compile(function, fullgraph=True)


def leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def channels_last(x):
    """The same values, the second axis contiguous."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)
