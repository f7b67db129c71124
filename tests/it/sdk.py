"""Uses the official Python SDK, unmodified but for its base URL: sdk.py BASE_URL KEY."""

import base64
import sys

from tosend import ToSend, ToSendError

base_url, key = sys.argv[1:]


class InTime(ToSend):
    """Asks again while the server could not answer in time, as on a busy machine."""

    def _request(self, *arguments, **options):
        while True:
            try:
                return super()._request(*arguments, **options)
            except ToSendError as error:
                if error.status_code != 503:
                    raise


client = InTime(api_key=key, base_url=base_url, timeout=60)


def refused(call, status, error_type, errors):
    """What the SDK raises: its status, its type, and the codes by field."""
    try:
        call()
    except ToSendError as error:
        assert error.status_code == status, error
        assert error.error_type == error_type, error.error_type
        codes = {field: sorted(told) for field, told in error.errors.items()}
        assert codes == errors, error.errors
        assert error.message, error
    else:
        raise AssertionError(f"accepted, instead of {errors}")


info = client.get_account_info()
assert info.account.status == "active", info
assert [(d.domain_name, d.verification_status, d.total_sent) for d in info.domains] == [
    ("acme.test", "verified", 0)
], info

email = {
    "from_address": {"email": "ada@acme.test", "name": "Ada"},
    "to": [{"email": "bob@example.org"}],
    "subject": "Hello",
    "html": "<p>It works.</p>",
}
sent = client.send(**email)
assert sent.message_id, sent

pixel = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
full = client.send(
    **{**email, "html": '<p><img src="cid:logo">It works.</p>'},
    text="It works.",
    cc=[{"email": "carol@example.org", "name": "Carol"}],
    bcc=[{"email": "dave@example.org"}],
    reply_to={"email": "support@acme.test", "name": "Support"},
    headers={"X-Campaign": "spring"},
    attachments=[
        {"type": "text/plain", "name": "a.txt", "content": base64.encodebytes(b"x" * 100).decode()},
        {"type": "image/png", "name": "logo.png", "content": pixel, "content_id": "logo"},
    ],
)
assert full.message_id and full.message_id != sent.message_id, full

batch = client.batch([email, {**email, "subject": ""}, {**email, "text": "It works."}])
assert [result.status for result in batch.results] == ["success", "error", "success"], batch
assert batch.results[0].message_id and batch.results[2].message_id, batch
assert batch.results[1].errors == {"subject": {"required": "Subject is required."}}, batch
assert [result.status for result in client.batch([email] * 2).results] == ["success"] * 2

stranger = {"email": "a@nowhere.test"}
for change, errors in [
    ({"subject": ""}, {"subject": ["required"]}),
    ({"html": None}, {"content": ["required"]}),
    ({"from_address": stranger}, {"from": ["domain_not_found"]}),
    ({"from_address": {"email": "ada"}}, {"from": ["email_invalid"]}),
    ({"to": []}, {"to": ["required"]}),
    ({"to": [{"email": "bob@example.org"}] * 51}, {"to": ["max_limit"]}),
    ({"cc": [{"email": "carol"}]}, {"cc": ["invalid"]}),
    ({"headers": {"Bcc": "eve@evil.test"}}, {"headers": ["not_allowed"]}),
    ({"attachments": [{"type": "a/b", "name": "c", "content": "?"}]}, {"attachments": ["invalid"]}),
    ({"subject": "", "to": []}, {"subject": ["required"], "to": ["required"]}),
]:
    refused(lambda: client.send(**{**email, **change}), 422, "validation_error", errors)
refused(lambda: client.batch([email] * 101), 422, "validation_error", {"emails": ["max_limit"]})

wrong = InTime(api_key="tsend_wrong", base_url=base_url, timeout=60)
for call in [wrong.get_account_info, lambda: wrong.send(**email), lambda: wrong.batch([email])]:
    refused(call, 403, "forbidden", {"api_key": ["invalid"]})

assert [d.total_sent for d in client.get_account_info().domains] == [6]
