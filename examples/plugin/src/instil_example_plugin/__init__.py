"""New modalities for instil: tones and tables."""
