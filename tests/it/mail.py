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


def fields(content):
    """The header fields, folded ones whole."""
    head = content.split(b"\n\n", 1)[0].split(b"\r\n\r\n", 1)[0]
    found = []
    for line in head.splitlines(keepends=True):
        if line[:1] in b" \t":
            found[-1] += line
        else:
            found.append(line)
    return found


def alterable():
    """The fields whose values somebody may change, and the signature holds all the same."""
    signed = [field for field in fields(content) if not field.lower().startswith(b"dkim-")]
    return [
        field.split(b":")[0].decode().lower()
        for field in signed
        if signature(content.replace(field, field.rstrip() + b"x\r\n", 1)) is True
    ]


def addable():
    """The fields that somebody may add, and the signature holds all the same."""
    names = ["From", "Subject", "To", "Cc", "Reply-To", "Date", "Message-ID", "MIME-Version"]
    names.append("Content-Type")
    return [
        name for name in names if signature(name.encode() + b": x\r\n" + content) is True
    ]


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
            "alterable": alterable(),
            "addable": addable(),
            "altered_signature_holds": signature(content.replace(b"Subject: ", b"Subject: Re: ")),
        }
    )
)
