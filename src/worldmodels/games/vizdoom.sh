#!/bin/sh
# Starts the ViZDoom engine WM_VIZDOOM in the folder WM_VIZDOOM_FOLDER (see doom.py).
#
# There, because the engine makes a directory `_vizdoom` where it starts. In a session of its own, because Ctrl-C is for
# the parent. Killed with the parent, because an engine ignores SIGTERM, and would outlive a parent that was killed.
cd "$WM_VIZDOOM_FOLDER" || exit 1
if command -v setsid >/dev/null && command -v setpriv >/dev/null; then
    exec setsid setpriv --pdeathsig KILL "$WM_VIZDOOM" "$@"
fi
exec "$WM_VIZDOOM" "$@"
