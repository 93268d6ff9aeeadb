#!/bin/sh
# keepalived calls this with: TYPE NAME STATE PRIORITY. With "check" it tells whether this node could serve.
set -u
SBC=${SBC:-/opt/sbc/bin/sbc}
CONFIG=${SBC_CONFIG:-/etc/sbc/sbc.yaml}

if [ "${1:-}" = check ]; then
  # The process must be there; that the other node is missing is no reason to give up the addresses.
  "$SBC" ha status -c "$CONFIG" --json | grep -q '"serves": *true'
  exit $?
fi

case "${3:-}" in
  MASTER) exec "$SBC" ha active -c "$CONFIG" ;;
  BACKUP | FAULT | STOP) exec "$SBC" ha standby -c "$CONFIG" ;;
  *)
    echo "sbc-notify: unknown state '${3:-}'" >&2
    exit 2
    ;;
esac
