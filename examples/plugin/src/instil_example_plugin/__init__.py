"""New modalities for instil: speech."""
