"""`make bench`: what the parts and the whole pipeline do, measured beside baselines of the same run."""
