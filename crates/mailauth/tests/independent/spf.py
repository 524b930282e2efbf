"""Evaluates SPF records with pyspf: an independent implementation.

Input: a JSON object with "zone", a list of [name, type, value], and "records", a list of SPF
records. Output: a JSON list of the results for 192.0.2.1 of each record at example.com.
"""
import json
import socket
import sys

import spf

given = json.load(sys.stdin)
zone = {}
for name, kind, value in given["zone"]:
    zone.setdefault(name, []).append((kind, value))


def lookup(name, kind, *_arguments, **_keywords):
    found = []
    for known, value in zone.get(name.lower().rstrip("."), []):
        if known == kind:
            if kind == "TXT":
                value = (value.encode(),)
            elif kind == "AAAA":
                value = socket.inet_pton(socket.AF_INET6, value)
            elif kind == "MX":
                value = (10, value)
            found.append(((name, kind), value))
    return found


spf.DNSLookup = lookup
results = []
for record in given["records"]:
    zone["example.com"] = [entry for entry in zone["example.com"] if entry[0] != "TXT"] + [("TXT", record)]
    query = spf.query("192.0.2.1", "strong-bad@example.com", "mx.example.com", strict=True)
    results.append(query.check()[0])
json.dump(results, sys.stdout)
