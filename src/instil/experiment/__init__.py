"""Data, networks, schemes and training options of a recipe, and checks of them before training."""
