"""New modalities for instil: speech, videos and tables."""
