"""The domain: pure, deterministic state machines and vectorised functions."""
