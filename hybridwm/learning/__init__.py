"""From recordings to a model: identification, residual, trust, events, and how models are kept."""
