"""A real Kubernetes for the demo and the tests; standard library only: it runs before anything is installed."""
