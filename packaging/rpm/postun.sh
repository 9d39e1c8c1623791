systemctl daemon-reload || true
if [ "$1" -ge 1 ]; then systemctl try-restart signal-agent.service || true; fi
