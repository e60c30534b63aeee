"""The serving wing: a bundle over HTTP. BentoML owns the process, FastAPI the routes; torch is never imported.

settings    MLA_* environment variables
model       settings -> a predictor that has been proved right on this machine
problems    exceptions -> RFC 9457 problem+json
connection  what a connection may cost before there is a request
dealing     connections dealt evenly over the workers
limits      what a request may cost: bytes on the stream, seconds
bench       the threads that answer and the bounded queue before them
batching    requests that want the same graph at the same time run it together
guard       API keys, CORS, security headers
identity    the id of each request; the access log
logs        the log as text or JSON
tracing     OpenTelemetry spans, where somebody collects them
forms       multipart and JSON bodies -> payloads and options
describe    GET /model, curl examples, the OpenAPI fields
api         create_app: the routes that programs call
pages       the playground, its samples and /docs: what people look at
mounted     the application of the model that is served now
update      a changed MLA_MODEL is taken up once it has been proved right
drain       the end of a worker, without losing what it accepted
metrics     Prometheus counters beside BentoML's
supervisor  the process that starts the workers: replaces them, refuses in one line what cannot work
service     the BentoML service
"""
