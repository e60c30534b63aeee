"""Everything that reaches into BentoML, uvicorn, circus or prometheus_client beyond their public interfaces."""
