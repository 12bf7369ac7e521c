"""Neural network modules that objectives and schemes share."""
