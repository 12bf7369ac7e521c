"""Text generation with language models: sampling of tokens and rollouts after prompts."""
