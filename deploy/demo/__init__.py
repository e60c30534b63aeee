"""A microphone that dies in production, from the service to the alert: `python -m deploy.demo.microphone`."""
