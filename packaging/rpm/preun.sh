# 0: removal, not an upgrade. The spool stays; rpm knows no purge.
if [ "$1" -eq 0 ]; then systemctl --no-reload disable --now signal-agent.service || true; fi
