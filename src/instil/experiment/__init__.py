"""A recipe carried out: data, nets, arms, results, and what can be said before."""
