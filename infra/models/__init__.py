"""The registry of models: immutable artefacts, one signed manifest, and loading by exact bytes."""
