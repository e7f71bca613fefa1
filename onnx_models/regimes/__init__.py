"""Regime models: labels from what came after, candidates, and whether one beats the rule."""
