"""A filter on libmilter that does what a message's subject says.

Arguments: the socket, and a file to which it appends the macros that it was told.
"""

import sys

import Milter


class Filter(Milter.Base):
    def __init__(self):
        self.subject = ""
        self.fields = []
        self.content = b""

    def envfrom(self, sender, *parameters):
        names = ("i", "j", "{auth_authen}", "{client_addr}", "{mail_addr}")
        with open(sys.argv[2], "a") as log:
            log.write(" ".join(f"{name}={self.getsymval(name)}" for name in names) + "\n")
        return Milter.CONTINUE

    def header(self, name, value):
        self.fields.append(name)
        if name == "Subject":
            self.subject = value
        return Milter.CONTINUE

    def body(self, chunk):
        self.content += chunk
        return Milter.CONTINUE

    def eom(self):
        if self.subject == "refuse":
            self.setreply("550", "5.7.1", "Not by this relay")
            return Milter.REJECT
        if self.subject == "later":
            return Milter.TEMPFAIL
        if self.subject == "discard":
            return Milter.DISCARD
        if self.subject == "hold":
            self.quarantine("looks odd")
        self.addheader("X-Seen", f"{len(self.content)} bytes,\n\tfields {','.join(self.fields)}")
        self.addheader("X-First", "yes", 0)
        self.chgheader("X-Secret", 1, "")
        return Milter.CONTINUE


Milter.factory = Filter
Milter.set_flags(Milter.ADDHDRS + Milter.CHGHDRS + Milter.QUARANTINE)
Milter.runmilter("filter", sys.argv[1], 60)
