"""Signs and seals messages with dkimpy: an independent implementation.

Arguments: the PEM file of an RSA key. Input: a JSON list of [canonical form of the header, of the
body, whether the length of the body is signed, message]. Output: a JSON list of messages, each
signed by example.com, then passed on and sealed by list.example.
"""
import json
import sys

import dkim

with open(sys.argv[1], "rb") as file:
    key = file.read()
signed = []
for header, body, length, text in json.load(sys.stdin):
    message = text.encode("latin-1")
    forms = (header.encode(), body.encode())
    message = dkim.sign(message, b"s", b"example.com", key, canonicalize=forms, length=length) + message
    results = b"Authentication-Results: list.example; dkim=pass header.d=example.com\r\n"
    message = results + message
    lines = dkim.arc_sign(message, b"s", b"list.example", key, b"list.example")
    signed.append((b"".join(lines) + message).decode("latin-1"))
json.dump(signed, sys.stdout)
