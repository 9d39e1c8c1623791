#!/usr/bin/env python3
"""The alert rules, judged by promtool: each fires in its own trouble, and none in health.

usage: test_alerts.py RULES
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

RULES = pathlib.Path(sys.argv.pop(1)).resolve()
MINUTES = 240  # how long each story lasts before its alerts are read
ONE = 'integration="C"'

# Hours of a healthy agent: series -> values, one per minute, in promtool's notation.
HEALTH = {
    "signal_agent_build_info{}": "1x300",
    "signal_agent_intake_open{}": "1x300",
    'signal_agent_spool_state{state="failed"}': "0x300",
    f"signal_agent_oldest_pending_age_seconds{{{ONE}}}": "3x300",
    "signal_agent_spool_bytes{}": "300x300",
    "signal_agent_spool_limit_bytes{}": "1000x300",
    "signal_agent_disk_free_bytes{}": "5000x300",
    "signal_agent_disk_reserve_bytes{}": "1000x300",
    f"signal_agent_events_buried{{{ONE}}}": "0x300",
    f"signal_agent_events_discarded_total{{{ONE}}}": "7x300",
    f"signal_agent_events_damaged_total{{{ONE}}}": "0x300",
    "signal_agent_spool_dropped_events_total{}": "7x300",
    "signal_agent_recovered_missing_events{}": "0x300",
    f"signal_agent_balance_difference{{{ONE}}}": "0x300",
    'signal_agent_events_rejected_total{code="INVALID_EVENT"}': "0+1x300",
    "signal_agent_events_received_total{}": "0+100x300",
    'signal_agent_http_responses_total{listener="intake",class="5xx"}': "0+1x300",
    'signal_agent_http_responses_total{listener="intake",class="2xx"}': "0+100x300",
    f"signal_agent_events_filtered_total{{{ONE}}}": "0+10x300",
    f"signal_agent_events_stored_total{{{ONE}}}": "0+100x300",
    f'signal_agent_producer_rebuilds_total{{{ONE},reason="fatal"}}': "2x300",
    f'signal_agent_delivery_state{{{ONE},state="orphaned"}}': "0x300",
    "signal_agent_config_reload_success{}": "1x300",
}

# alert -> what differs from health
TROUBLES = {
    "SignalAgentDown": {"signal_agent_build_info{}": "1x200 _x100"},
    "SignalAgentIntakeClosed": {"signal_agent_intake_open{}": "1x200 0x100"},
    "SignalAgentSpoolFailed": {'signal_agent_spool_state{state="failed"}': "0x200 1x100"},
    "SignalAgentDeliveryFailing": {
        f'signal_agent_delivery_failure{{{ONE},code="AUTHENTICATION_FAILED"}}': "_x200 1x100"},
    "SignalAgentEventsWaitLong": {
        f"signal_agent_oldest_pending_age_seconds{{{ONE}}}": "3x200 1000+60x100"},
    "SignalAgentSpoolFillsUp": {"signal_agent_spool_bytes{}": "300x100 810x200"},
    "SignalAgentSpoolFullSoon": {"signal_agent_spool_bytes{}": "100x100 100+4x200"},
    "SignalAgentDiskNearReserve": {"signal_agent_disk_free_bytes{}": "5000x200 1900x100"},
    "SignalAgentDeadLetters": {f"signal_agent_events_buried{{{ONE}}}": "0x200 3x100"},
    "SignalAgentEventsDiscarded": {
        f"signal_agent_events_discarded_total{{{ONE}}}": "7x236 9x64"},
    "SignalAgentEventsDamaged": {"signal_agent_recovered_missing_events{}": "0x200 2x100"},
    "SignalAgentBooksDoNotBalance": {
        f"signal_agent_balance_difference{{{ONE}}}": "0x200 -1x100"},
    "SignalAgentEventsRejected": {
        'signal_agent_events_rejected_total{code="INVALID_EVENT"}': "0+1x200 200+6x100"},
    "SignalAgentIntakeErrors": {
        'signal_agent_http_responses_total{listener="intake",class="5xx"}':
            "0+1x200 200+10x100"},
    "SignalAgentNoTraffic": {
        "signal_agent_events_received_total{}": "0+100x180 18000x120",
        'signal_agent_events_rejected_total{code="INVALID_EVENT"}': "0x300"},
    "SignalAgentMostEventsFiltered": {
        f"signal_agent_events_filtered_total{{{ONE}}}": "0+10x100 1000+60x200"},
    "SignalAgentProducerRebuilt": {
        f'signal_agent_producer_rebuilds_total{{{ONE},reason="fatal"}}': "2x200 2+1x100"},
    "SignalAgentIntegrationOrphaned": {
        f'signal_agent_delivery_state{{{ONE},state="orphaned"}}': "0x100 1x200"},
    "SignalAgentReloadFailed": {"signal_agent_config_reload_success{}": "1x200 0x100"},
}


def shipped_alerts():
    return re.findall(r"- alert: (\w+)", RULES.read_text())


def story(name, changes, firing):
    series = {**HEALTH, **changes}
    return {
        "name": name, "interval": "1m",
        "input_series": [
            {"series": key.replace("{", '{instance="a:8084",job="signal-agent",').replace(",}", "}"),
             "values": values} for key, values in series.items()],
        "promql_expr_test": [{
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": f"{MINUTES}m",
            "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in firing],
        }],
    }


def judge(*stories):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(RULES, folder)
        tests = pathlib.Path(folder) / "tests.yml"
        tests.write_text(json.dumps({  # JSON is YAML
            "rule_files": [RULES.name], "evaluation_interval": "1m", "tests": list(stories)}))
        return subprocess.run(["promtool", "test", "rules", str(tests)], capture_output=True,
                              text=True, timeout=120)


class Alerts(unittest.TestCase):
    def test_promtool_accepts_the_rules(self):
        result = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True,
                                text=True, timeout=60)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_every_alert_has_its_trouble_here(self):
        self.assertEqual(sorted(shipped_alerts()), sorted(TROUBLES))

    def test_nothing_fires_in_health(self):
        result = judge(story("health", {}, []))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_each_alert_fires_in_its_own_trouble_and_no_other_does(self):
        result = judge(*(story(alert, changes, [alert]) for alert, changes in TROUBLES.items()))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_an_alert_that_should_not_fire_would_be_noticed(self):
        result = judge(story("health", TROUBLES["SignalAgentReloadFailed"], []))
        self.assertNotEqual(result.returncode, 0)

    def test_every_alert_says_what_to_do(self):
        text = RULES.read_text()
        self.assertEqual(text.count("summary:"), len(shipped_alerts()))
        self.assertEqual(text.count("description:"), len(shipped_alerts()))


if __name__ == "__main__":
    unittest.main(verbosity=2)
