"""BentoML and uvicorn: the service that BentoML runs, and every change to what they do otherwise.

service          the BentoML service; what a worker does at its start and at its end
router           which paths BentoML answers and which our application answers
drain            SIGTERM: a worker answers the requests that it has accepted, then ends
cannot_serve     the refusal to start, in one line
raw_response     answers to what never becomes a request of the application
logs             the log as text or JSON
run_folder       the folder of one running service: metrics, and a copy of the bundle
client_schema    what bentoml.SyncHTTPClient learns about the service

Uses of parts that BentoML, uvicorn and prometheus_client do not promise to keep, one file each. Where one does not take
hold, patches.py says so in the log and in the metric `mla_patch_active`.

arbiter          BentoML's main process: restarts dead workers at once, refuses connections while the service ends
usage_reports    BENTOML_DO_NOT_TRACK takes effect under `bentoml serve` too
uvicorn_config   the HTTP protocol that uvicorn uses, which BentoML cannot be told
accept_evenly    the event loop that uvicorn runs on: connections are spread evenly over the workers
connection       that protocol: limits on what comes before there is a request
histograms       many values are added to a metric at once (prometheus_client)
"""
