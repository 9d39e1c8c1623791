"""usage: send.py segment|rudderstack URL KEY COUNT

COUNT events of each type through the vendor's SDK, then flush. Exits 0 when the SDK took every
event as delivered.
"""
import sys

vendor, url, key, count = sys.argv[1:]
failures = []

if vendor == "segment":
    import segment.analytics as analytics
    analytics.host = url
else:
    import rudderstack.analytics as analytics
    analytics.dataPlaneUrl = url
analytics.write_key = key
analytics.on_error = lambda error, items: failures.append(error)
analytics.max_retries = 3

for number in range(int(count)):
    user, anonymous = f"user-{number}", f"anonymous-{number}"
    analytics.identify(user, {"email": "ä@example.com", "plan": 'Größe "L"', "age": 10 ** 21}, anonymous_id=anonymous)
    analytics.track(user, "Order Completed", {"total": 99.90, "emoji": "😀", "nothing": None, "list": [1, [2]]},
                    anonymous_id=anonymous)
    analytics.page(user, None, "Start", {"url": "https://example.com/?a=1&b=2"}, anonymous_id=anonymous)
    analytics.group(user, f"group-{number}", {"name": "A\u2028B\\C/D"}, anonymous_id=anonymous)
analytics.shutdown()
if failures:
    sys.exit(f"{len(failures)} failures, first {failures[0]!r}")
