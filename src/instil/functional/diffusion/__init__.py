"""Parts of diffusion models: schedules, parameterisations, times, weights and sampling steps."""
