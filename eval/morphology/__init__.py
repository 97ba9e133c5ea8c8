"""Gymnasium's runners as bodies for the morphology policy: experts, demonstrations, cloning."""
