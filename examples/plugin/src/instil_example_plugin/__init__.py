"""New modalities for instil: tones, videos and tables."""
