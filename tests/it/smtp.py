"""A relay that does as it is told: smtp.py PORT FOLDER [CERTIFICATE KEY].

Takes orders from standard input, a JSON object a line, and answers each with a line. What it gets
it adds to FOLDER/mails, a JSON object a line; who wants to log in, to FOLDER/logins.

mail, data: lists of answers to the next MAIL and to the next contents. rcpt: answers by address, as
long as they stand there. cut: for the next contents, "before" the final dot or "after" it. delay:
seconds before each content is answered. slow: the same by address. password: a login is needed,
with it. greeting, hello: lists of answers to the next connections and to the next EHLO, instead of
taking them. How each client greets it adds to FOLDER/hellos. An answer is written in Latin-1, with CRLF
unless it ends with LF; "cut" instead of one hangs up. The size of each content adds to FOLDER/contents.
"""

import asyncio
import base64
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

port, folder = sys.argv[1:3]
orders = {"mail": [], "data": [], "rcpt": {}, "cut": [], "delay": 0, "slow": {}, "password": None,
          "greeting": [], "hello": []}
tls = None
if len(sys.argv) > 3:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*sys.argv[3:5])


def note(name, what):
    with open(f"{folder}/{name}", "a") as file:
        file.write(json.dumps(what) + "\n")


def log_in(server, session, envelope, mechanism, data):
    note("logins", {"user": data.login.decode(), "is_encrypted": session.ssl is not None})
    return AuthResult(success=data.password.decode() == orders["password"], handled=False)


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        if orders["password"] and not session.authenticated:
            return "530 5.7.0 Authentication required"
        if orders["mail"]:
            return orders["mail"].pop(0)
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in orders["rcpt"]:
            return orders["rcpt"][address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        note("contents", len(envelope.content))
        slow = [orders["slow"].get(address, 0) for address in envelope.rcpt_tos]
        await asyncio.sleep(max(orders["delay"], *slow))
        if orders["data"]:
            return orders["data"].pop(0)
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "content": base64.b64encode(envelope.content).decode(),
            "is_encrypted": session.ssl is not None,
        }
        note("mails", mail)
        if orders["cut"][:1] == ["after"]:
            orders["cut"].pop(0)
            server.transport.abort()
        return "250 Queued"


class Relay(SMTP):
    async def push(self, status):
        # The greeting is the only thing that is said before a command.
        if orders["greeting"] and not self.session.host_name and status.startswith("220 relay.test"):
            status = orders["greeting"].pop(0)
        if status == "cut":
            return self.transport.abort()
        end = "" if status.endswith("\n") else "\r\n"
        self._writer.write((status + end).encode("latin-1"))
        await self._writer.drain()

    async def smtp_EHLO(self, hostname):
        note("hellos", hostname)
        if orders["hello"]:
            return await self.push(orders["hello"].pop(0))
        await super().smtp_EHLO(hostname)

    async def smtp_DATA(self, arg):
        if orders["cut"][:1] != ["before"]:
            return await super().smtp_DATA(arg)
        orders["cut"].pop(0)
        await self.push("354 Go ahead")
        await self._reader.readline()
        self.transport.abort()


def relay():
    return Relay(
        Handler(),
        tls_context=tls,
        authenticator=log_in,
        hostname="relay.test",
        data_size_limit=None,
        command_call_limit=10_000,
    )


async def main():
    loop = asyncio.get_running_loop()
    await loop.create_server(relay, "127.0.0.1", int(port))
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        orders.update(json.loads(line))
        print("done", flush=True)


asyncio.run(main())
