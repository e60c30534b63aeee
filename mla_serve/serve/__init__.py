"""The service: a bundle over HTTP. BentoML owns the processes, FastAPI the routes; torch is never imported.

Each line imports only lines above it. A request comes in at the bottom and goes up: bento, models, api, then http for its
body, and workers and answerer for its answer.

settings    MLA_* environment variables
metrics     Prometheus metrics beside BentoML's
request_id  the id of each request; the access log
problems    exceptions -> RFC 9457 problem+json
tracing     OpenTelemetry spans, if something collects them
http/       bodies, limits, keys, pages, the OpenAPI description
workers/    the threads that compute answers, their queue, batches of requests
answerer    what a thread does for a request: let the predictor answer, and write the answer as JSON
api         create_app: the routes and layers of one model
models/     the model that is served: opened, checked, replaced when MLA_MODEL changes
bento/      the BentoML service, and all that touches BentoML, uvicorn or prometheus_client beyond their public API
web/        the playground: what the browser loads
"""
