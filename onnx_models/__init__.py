"""The offline side: recordings, labels, training, export, model cards and shipped artefacts."""
