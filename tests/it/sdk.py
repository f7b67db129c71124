"""Uses the official Python SDK, unmodified but for its base URL: sdk.py BASE_URL KEY."""

import sys

from tosend import ToSend, ToSendError

base_url, key = sys.argv[1:]
client = ToSend(api_key=key, base_url=base_url)

info = client.get_account_info()
assert info.account.status == "active", info
assert [(d.domain_name, d.verification_status) for d in info.domains] == [
    ("acme.test", "verified")
], info

email = {
    "from_address": {"email": "ada@acme.test", "name": "Ada"},
    "to": [{"email": "bob@example.org"}],
    "subject": "Hello",
    "html": "<p>It works.</p>",
}
sent = client.send(**email)
assert sent.message_id, sent

for change, status in [({"subject": ""}, 422), ({"from_address": {"email": "a@b.test"}}, 422)]:
    try:
        client.send(**{**email, **change})
    except ToSendError as error:
        assert error.status_code == status, error
    else:
        raise AssertionError(f"accepted: {change}")

try:
    ToSend(api_key="tsend_wrong", base_url=base_url).get_account_info()
except ToSendError as error:
    assert error.status_code == 403, error
else:
    raise AssertionError("a wrong key was accepted")
