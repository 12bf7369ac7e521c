"""Students made of a teacher: fewer layers, narrower ones, a smaller vocabulary, low rank, few bits."""
