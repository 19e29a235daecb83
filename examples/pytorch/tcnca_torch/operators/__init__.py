"""The operators torch.ops.tcnca.*, and the functions that call them."""
