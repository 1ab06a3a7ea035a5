#!/bin/sh
# Makes the secrets of docker-compose.yml, once: each is a file that only its service gets to see.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets

make_secret() {
  if [ ! -s "secrets/$1" ]; then
    printf '%s' "$2" >"secrets/$1"
  fi
  # Containers run under accounts of their own. The folder keeps other people out.
  chmod 444 "secrets/$1"
}

random() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

make_secret postgres_password "$(random)"
make_secret reader_password "$(random)"
make_secret admin_token "$(random)"
make_secret grafana_password "$(random)"
make_secret database_url "postgresql://taximeter:$(cat secrets/postgres_password)@postgres:5432/taximeter"
echo "The secrets are in stack/secrets. Grafana: user admin, password in grafana_password."
