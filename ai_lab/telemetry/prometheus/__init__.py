"""What Prometheus sees: families, a registry of our own, and the instruments that feed it."""
