systemd-sysusers signal-agent.conf || true
systemctl daemon-reload || true
if [ "$1" -eq 1 ]; then systemctl preset signal-agent.service || true; fi
