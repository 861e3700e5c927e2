"""The computations behind the published tables, one module per lesson."""
