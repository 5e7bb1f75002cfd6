"""The loop of Lambda's runtime: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html"""

import json
import os
import time
from collections.abc import Callable
from http.client import HTTPConnection


class Context:
    """The context of an invocation."""

    def __init__(self, request_id: str, deadline_ms: int) -> None:
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.aws_request_id = request_id
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._deadline_ms - int(time.time() * 1000)


def serve(handler: Callable[[dict, Context], object]) -> None:
    """Answers one invocation after the other with what the handler returns."""
    connection = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    invocation = "/2018-06-01/runtime/invocation"
    while True:
        connection.request("GET", f"{invocation}/next")
        following = connection.getresponse()
        body = following.read()
        if following.status != 200:
            return
        request_id = following.headers["lambda-runtime-aws-request-id"]
        context = Context(request_id, int(following.headers["lambda-runtime-deadline-ms"]))
        try:
            kind, answer = "response", handler(json.loads(body), context)
        except Exception as error:
            kind, answer = "error", {"errorMessage": repr(error)}
        connection.request("POST", f"{invocation}/{request_id}/{kind}", json.dumps(answer))
        connection.getresponse().read()
