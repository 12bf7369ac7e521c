"""Schemes in which several networks, or several branches of one network, train together."""
