#!/bin/sh
# Starts the ViZDoom engine that the link `engine` beside $0 names (see doom.py: $0 is a link in a temporary folder).
#
# There, because the engine makes a directory `_vizdoom` where it starts. In a session of its own, because Ctrl-C is for
# the parent. Killed with the parent, because an engine ignores SIGTERM, and would outlive a parent that was killed.
cd "$(dirname "$0")" || exit 1
engine=$(readlink -f engine)
if command -v setsid >/dev/null && command -v setpriv >/dev/null; then
    exec setsid setpriv --pdeathsig KILL "$engine" "$@"
fi
exec "$engine" "$@"
