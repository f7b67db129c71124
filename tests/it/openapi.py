"""What Schemathesis cannot read in the description: from which domain this server's account sends.

And that the machine may be slow.
"""

import requests
import schemathesis

send = requests.Session.send


def send_until_in_time(session, request, **options):
    """Sends again while the server could not answer in time, as on a busy machine."""
    response = send(session, request, **options)
    while response.status_code == 503:
        response.close()
        response = send(session, request, **options)
    return response


requests.Session.send = send_until_in_time

VERIFIED = "acme.test"


@schemathesis.hook
def before_call(context, case, kwargs):
    """Sends what is meant to be accepted from the verified domain. What is wrong stays so."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    for email in emails(case.body):
        local = email["from"]["email"].rpartition("@")[0]
        email["from"]["email"] = f"{local}@{VERIFIED}"


def emails(body):
    """Of a batch in either form, or the one that the body is."""
    if isinstance(body, dict):
        return body.get("emails", [body])
    return body if isinstance(body, list) else []
