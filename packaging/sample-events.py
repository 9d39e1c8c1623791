#!/usr/bin/env python3
"""Writes a realistic NDJSON sample of events, the same bytes every time: something to try `send` on.

    packaging/sample-events.py [COUNT] > sample-events.ndjson
    signal-agent send sample-events.ndjson

A few hundred visitors of a web shop over one morning: pages, carts, orders, sign-ups. Some
visitors are known by user id, most by anonymous id; sizes and spellings vary as they do in life.
"""
import json
import random
import sys
import uuid

SEED = 20241105
START_MS = 1_730_800_000_000
PRODUCTS = [("sku-%04d" % n, name, round(4.9 + n * 3.7, 2)) for n, name in enumerate(
    ["Trail Shoe", "Rain Jacket", "Thermosflasche 0,7 l", "Head Torch", "Crème solaire", "Map of the Alps",
     "Schlafsack −5 °C", "Climbing Rope 60 m", "Espresso Kocher", "日本の山 (book)", "Tent Pegs", "First Aid Kit"])]
AGENTS = ["Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X)",
          "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_6)", "ShopApp/5.2 (Android 15; Pixel 8)"]
SOURCES = [{}, {"source": "newsletter", "medium": "email", "name": "november"},
           {"source": "google", "medium": "cpc", "name": "alps", "term": "rain jacket"}]


class Visitor:
    def __init__(self, rng):
        self.anonymous_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        self.user_id = "user-%05d" % rng.randrange(90_000) if rng.random() < 0.3 else None
        self.agent = rng.choice(AGENTS)
        self.campaign = rng.choice(SOURCES)
        self.consent = {"analytics": rng.random() < 0.9, "marketing": rng.random() < 0.4, "functional": True}
        self.cart = []


def event_of(rng, visitor, now_ms):
    product = rng.choice(PRODUCTS)
    item = {"product_id": product[0], "name": product[1], "price": product[2], "currency": "EUR"}
    kind = rng.choices(["page", "viewed", "added", "ordered", "identify", "group"], [50, 22, 14, 6, 7, 1])[0]
    body = {}
    if kind == "page":
        body = {"type": "page", "name": product[1], "properties": {"path": "/p/" + product[0], "title": product[1]}}
    elif kind == "viewed":
        body = {"type": "track", "event": "Product Viewed", "properties": item}
    elif kind == "added":
        visitor.cart.append(item)
        body = {"type": "track", "event": "product_added", "properties": dict(item, quantity=rng.randrange(1, 4))}
    elif kind == "ordered":
        items = visitor.cart or [item]
        body = {"type": "track", "event": "Order Completed",
                "properties": {"order_id": "o-%07d" % rng.randrange(10**7), "products": items,
                               "total": round(sum(i["price"] for i in items), 2), "currency": "EUR"}}
        visitor.cart = []
    elif kind == "identify":
        visitor.user_id = visitor.user_id or "user-%05d" % rng.randrange(90_000)
        body = {"type": "identify", "traits": {"plan": rng.choice(["free", "pro"]), "locale": rng.choice(["de-AT", "fr-FR", "en-GB"])}}
    else:
        body = {"type": "group", "groupId": "team-%03d" % rng.randrange(300), "traits": {"seats": rng.randrange(2, 40)}}
    body["anonymousId"] = visitor.anonymous_id
    if visitor.user_id:
        body["userId"] = visitor.user_id
    body["messageId"] = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    seconds, ms = divmod(now_ms, 1000)
    body["timestamp"] = "2024-11-05T%02d:%02d:%02d.%03dZ" % (seconds // 3600 % 24, seconds // 60 % 60, seconds % 60, ms)
    body["context"] = {"page": {"url": "https://shop.example/p/" + product[0], "path": "/p/" + product[0]},
                       "userAgent": visitor.agent, "locale": "de-AT", "ip": "192.0.2.%d" % rng.randrange(1, 255),
                       "consent": visitor.consent}
    if visitor.campaign:
        body["context"]["campaign"] = visitor.campaign
    return body


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    sys.stdout.reconfigure(encoding="utf-8")
    rng = random.Random(SEED)
    visitors = [Visitor(rng) for _ in range(max(1, count // 12))]
    now_ms = START_MS
    for _ in range(count):
        now_ms += rng.randrange(5, 4000)
        line = json.dumps(event_of(rng, rng.choice(visitors), now_ms), ensure_ascii=rng.random() < 0.2,
                          separators=(",", ":"))
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
