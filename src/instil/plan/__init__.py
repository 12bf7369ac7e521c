"""Jobs of a recipe: training, recording, evaluation and export into a run folder."""
