#!/bin/sh
# Installs a renewed certificate and its key for postrider and makes the relay read them.
#
# As certbot's hook:   certbot renew --deploy-hook /etc/postrider/deploy-certificate.sh
#                      (certbot says in RENEWED_LINEAGE where the new files are)
# As acme.sh's:        acme.sh --install-cert -d HOST --fullchain-file F --key-file K \
#                        --reloadcmd "/etc/postrider/deploy-certificate.sh F K"
# By hand:             deploy-certificate.sh FULLCHAIN.PEM PRIVKEY.PEM
#
# The configuration's [tls] certificate and key name the two files in POSTRIDER_TLS_DIR.
set -eu

directory=${POSTRIDER_TLS_DIR:-/etc/postrider/tls}
group=${POSTRIDER_GROUP:-postrider}

case $# in
0)
    if [ -z "${RENEWED_LINEAGE:-}" ]; then
        echo "usage: $0 FULLCHAIN.PEM PRIVKEY.PEM (or RENEWED_LINEAGE in the environment)" >&2
        exit 2
    fi
    certificate=$RENEWED_LINEAGE/fullchain.pem
    key=$RENEWED_LINEAGE/privkey.pem
    ;;
2)
    certificate=$1
    key=$2
    ;;
*)
    echo "usage: $0 FULLCHAIN.PEM PRIVKEY.PEM" >&2
    exit 2
    ;;
esac

# A pair that does not belong together would be refused by the relay, which then keeps
# the old one: better told here, where the renewal's log shows it.
if command -v openssl >/dev/null 2>&1; then
    of_certificate=$(openssl x509 -in "$certificate" -noout -pubkey)
    of_key=$(openssl pkey -in "$key" -pubout)
    if [ "$of_certificate" != "$of_key" ]; then
        echo "$0: $certificate and $key do not belong together" >&2
        exit 1
    fi
fi

umask 077
if [ ! -d "$directory" ]; then
    mkdir -p "$directory"
    chgrp "$group" "$directory"
    chmod 0750 "$directory"
fi

# Written aside and renamed: the relay never reads half a file.
place() {
    cp "$1" "$2.new"
    chgrp "$group" "$2.new"
    chmod "$3" "$2.new"
    mv -f "$2.new" "$2"
}
place "$key" "$directory/privkey.pem" 0640
place "$certificate" "$directory/fullchain.pem" 0644

# The relay notices changed files by itself; this makes it do so now.
if [ "${POSTRIDER_RELOAD:-systemctl}" = systemctl ]; then
    if command -v systemctl >/dev/null 2>&1 && systemctl is-active --quiet postrider; then
        systemctl reload postrider
    fi
else
    sh -c "$POSTRIDER_RELOAD"
fi
