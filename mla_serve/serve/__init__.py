"""The serving wing: a bundle over HTTP. BentoML owns the process, FastAPI the routes; torch is never imported.

settings    MLA_* environment variables
model       settings -> a predictor that has been proved right on this machine
problems    exceptions -> RFC 9457 problem+json
limits      what a request may cost: bytes on the stream, seconds
forms       multipart and JSON bodies -> payloads and options
describe    GET /model, curl examples, the OpenAPI fields
api         create_app: the routes
service     the BentoML service
"""
