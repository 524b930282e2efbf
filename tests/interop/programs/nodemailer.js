// Arguments: CA file, STARTTLS port, wrapper port, user, password.
const [ca, starttls, wrapper, user, pass] = process.argv.slice(2);
const fs = require("fs");
const nodemailer = require("nodemailer");
const message = {
  from: "App <app@example.com>",
  to: ["one@example.net", "two@example.net"],
  bcc: "hidden@example.net",
  subject: "Grüße from nodemailer",
  text: "Schöne Grüße\n.\nlast line\n",
  html: "<p>Schöne Grüße</p>",
  attachments: [{ filename: "large.bin", content: Buffer.alloc(5000000, 7) }],
};
(async () => {
  for (const [port, secure] of [[starttls, false], [wrapper, true]]) {
    const transport = nodemailer.createTransport({
      host: "localhost", port: Number(port), secure, requireTLS: true,
      auth: { user, pass }, tls: { ca: fs.readFileSync(ca) },
    });
    await transport.sendMail(message);
  }
})().catch((error) => { console.error(error); process.exit(1); });
