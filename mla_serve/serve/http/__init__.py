"""HTTP: bodies and fields to payloads, limits, keys, pages, the OpenAPI description."""
