"""Schemes with a discriminator, or with adversarial samples, that make the student match its teacher."""
