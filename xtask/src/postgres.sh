# A throw-away PostgreSQL cluster for as long as standard input stays open.
#
# The one who starts this holds the other end of the pipe. However that process ends, killed or not, the pipe closes,
# and this script stops the server and deletes its folder. So it ignores the signals that would end it before that.
# Needs in the environment: PG_BIN, PG_PORT; PG_DURABLE where commits are to outlive a loss of power. Prints "ready" once
# the server accepts connections, and again after each command that it reads: "crash" ends the server as a loss of power
# would, "start" brings it back.
set -eu
trap '' HUP INT PIPE TERM

folder=$(mktemp -d "${TMPDIR:-/tmp}/agentrouter-postgres.XXXXXX")
cd "$folder"
cleanup() {
  if [ -f data/postmaster.pid ]; then "$PG_BIN/pg_ctl" stop -D data -m immediate -s || true; fi
  cd / && rm -rf "$folder"
}
trap cleanup EXIT

# A linguistic default collation, so that a column which forgot COLLATE "C" sorts visibly otherwise than in SQLite.
"$PG_BIN/initdb" -D data -U postgres --auth=trust --encoding=UTF8 --locale=C \
  --locale-provider=icu --icu-locale=en-US --no-sync >initdb.log 2>&1 || { cat initdb.log >&2; exit 1; }

cat >>data/postgresql.conf <<EOF
listen_addresses = '127.0.0.1'
port = $PG_PORT
unix_socket_directories = '$folder'
max_connections = 200
EOF
if [ -z "${PG_DURABLE:-}" ]; then
  cat >>data/postgresql.conf <<EOF
# Nothing here outlives the run.
fsync = off
synchronous_commit = off
full_page_writes = off
EOF
fi

start() {
  "$PG_BIN/pg_ctl" start -D data -l server.log -w -s >&2 || { cat server.log >&2; exit 1; }
}

start
echo ready
while read -r command; do
  case "$command" in
    crash) "$PG_BIN/pg_ctl" stop -D data -m immediate -s >&2 ;;
    start) start ;;
  esac
  echo ready
done
