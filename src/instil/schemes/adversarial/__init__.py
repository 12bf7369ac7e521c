"""Schemes that train the student with a critic or with adversarial samples."""
