"""HTTP: from the bytes of a request to payloads and options, limits and keys, what the service says of itself.

content_type  the Content-Type header of a body or of one part
fields        the rules for fields that hold for forms, JSON and the query string
options       the options of a request, from the URL or the body
forms         form bodies -> payloads and options
json_body     JSON bodies -> payloads and options
body_limits   how large a body may be, and how much memory all bodies together may take
deadline      how long a request may take
guard         API keys, CORS origins, security headers
read_sample   the sample and the options of one request, from a form or from JSON
openapi       GET /model, curl examples, the OpenAPI schemas of requests
replies       what the replies of each task are: their schemas, what GET /model says of the task
examples      requests for the schemas, with answers of this model
pages         the playground, its samples, /docs, the explanation of each problem
about         what the pages about the model show: its texts, its card, its report
accept        a page for people or JSON for programs, where both have one path
"""
