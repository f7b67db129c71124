"""Reads a message on standard input as Python does, and tells what it is: mail.py NAME RECORD.

NAME is where a TXT RECORD with the public key stands: whether the signature holds is told too.
"""

import email
import email.policy
import json
import sys

import dkim

name, record = sys.argv[1:]
content = sys.stdin.buffer.read()
message = email.message_from_bytes(content, policy=email.policy.default)


def lookup(asked, timeout=5):
    return record.encode() if asked.decode().rstrip(".") == name else None


def signature(content):
    try:
        return dkim.verify(content, dnsfunc=lookup)
    except dkim.DKIMException as error:
        return str(error)


def part(found):
    return {
        "type": found.get_content_type(),
        "name": found.get_filename(),
        "id": found["content-id"],
        "disposition": found.get_content_disposition(),
        "text": found.get_content() if found.get_content_maintype() == "text" else None,
        "bytes": list(found.get_payload(decode=True)),
    }


print(
    json.dumps(
        {
            "headers": [[name, str(value)] for name, value in message.items()],
            "structure": [found.get_content_type() for found in message.walk()],
            "parts": [part(found) for found in message.walk() if not found.is_multipart()],
            "defects": [str(d) for found in message.walk() for d in found.defects],
            "is_signed": "dkim-signature" in message,
            "signature_holds": signature(content),
            "altered_signature_holds": signature(content.replace(b"Subject: ", b"Subject: Re: ")),
        }
    )
)
