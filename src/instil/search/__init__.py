"""Search for methods and options: strategies over trainings of one recipe."""
