"""Pure functions of tensors that objectives and schemes share."""
