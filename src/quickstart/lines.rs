//! The lines to paste.

use anyhow::Result;

use super::setup::Credential;
use super::{INBOX_DOMAIN, SENDER_DOMAIN};
use crate::cli::QuickstartArgs;
use crate::config::Config;
use crate::output::Output;

pub(crate) fn print(config: &Config, args: &QuickstartArgs, credential: &Credential, out: &mut Output) -> Result<()> {
    let Credential { user_name: user, smtp_password: password, .. } = credential;
    let (starttls, wrapper) = (args.starttls_port, args.wrapper_port);
    let state = config.server.state_dir.display();
    // Under `cargo run` the program is not on the path.
    let program = std::env::current_exe().map_or_else(|_| "postrider".to_owned(), |path| path.display().to_string());
    out.line(format_args!(
        "\
postrider takes mail on 127.0.0.1, port {starttls} (STARTTLS) and {wrapper} (TLS from the first byte),
with a self-signed certificate. Mail for @{INBOX_DOMAIN} arrives below. Mail for anyone else is
held: nothing leaves this machine. The sender must be at @{SENDER_DOMAIN}, or at a domain that you declare yours:
{program} identities create DOMAIN --trust

  user name  {user}
  password   {password}

With swaks:

swaks --server 127.0.0.1 --port {starttls} --tls --auth PLAIN --auth-user {user} --auth-password '{password}' \\
  --from me@{SENDER_DOMAIN} --to you@{INBOX_DOMAIN} --header 'Subject: Hello from swaks'

With Python:

python3 - <<'END'
import smtplib, ssl
from email.message import EmailMessage
mail = EmailMessage()
mail[\"From\"], mail[\"To\"], mail[\"Subject\"] = \"me@{SENDER_DOMAIN}\", \"you@{INBOX_DOMAIN}\", \"Hello from Python\"
mail.set_content(\"It works.\")
tls = ssl.create_default_context(cafile=\"{state}/keys/self-signed.pem\")
with smtplib.SMTP(\"127.0.0.1\", {starttls}) as smtp:
    smtp.starttls(context=tls)
    smtp.login(\"{user}\", \"{password}\")
    smtp.send_message(mail)
END

With Postfix, which relays everything then (as root):

postconf -e 'relayhost = [127.0.0.1]:{starttls}' 'smtp_sasl_auth_enable = yes' \\
  'smtp_sasl_security_options = noanonymous' 'smtp_tls_security_level = encrypt' \\
  'smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd'
(umask 077; echo '[127.0.0.1]:{starttls} {user}:{password}' > /etc/postfix/sasl_passwd)
postmap hash:/etc/postfix/sasl_passwd && postfix reload

The other commands work from this directory in another terminal, as in:

{program} queue list

Everything is kept in {state}. Ctrl-C stops.
"
    ))?;
    out.flush()
}
