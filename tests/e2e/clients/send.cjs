// usage: node send.cjs segment|rudderstack URL KEY COUNT
// COUNT events of each type through the vendor's SDK, then flush. Exits 0 when the SDK took every
// event as delivered.
'use strict';

const [vendor, url, key, count] = process.argv.slice(2);

function fail(error) {
  console.error(error);
  process.exit(1);
}

function calls(send) {
  for (let number = 0; number < Number(count); number++) {
    const user = { userId: `user-${number}`, anonymousId: `anonymous-${number}` };
    send('identify', { ...user, traits: { email: 'ä@example.com', plan: 'Größe "L"', age: 1e21 } });
    send('track', { ...user, event: 'Order Completed', properties: { total: 99.90, emoji: '😀', nothing: null, list: [1, [2]] } });
    send('page', { anonymousId: `anonymous-${number}`, name: 'Start', properties: { url: 'https://example.com/?a=1&b=2' } });
    send('group', { ...user, groupId: `group-${number}`, traits: { name: 'A\u2028B\\C/D' } });
  }
}

async function segment() {
  const { Analytics } = require('@segment/analytics-node');
  const analytics = new Analytics({ writeKey: key, host: url, path: '/v1/batch', flushAt: 7, flushInterval: 200 });
  analytics.on('error', fail);
  calls((type, event) => analytics[type](event));
  await analytics.closeAndFlush({ timeout: 60000 });
}

async function rudderstack() {
  const Analytics = require('@rudderstack/rudder-sdk-node');
  const analytics = new Analytics(key, { dataPlaneUrl: url, flushAt: 7, flushInterval: 200 });
  const sent = [];
  calls((type, event) => sent.push(new Promise((resolve, reject) =>
    analytics[type](event, (error) => (error ? reject(error) : resolve())))));
  await Promise.all(sent);
  await analytics.flush();
  process.exit(0);
}

({ segment, rudderstack })[vendor]().catch(fail);
