// Uploads with tokens of a provider that rotates its keys under load, and goes down.
//   BASE_URL=… node rotation.mjs FILE       FILE is what provider.mjs has written
// Prints a line for each thing that was looked at, and `N passed, N failed` at the end.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const { issuer, control } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const base = process.env.BASE_URL;
let passed = 0;
let failed = 0;

function verdict(name, why) {
  if (why) { failed += 1; console.log(`FAIL ${name}: ${why}`); } else { passed += 1; console.log(`ok ${name}`); }
}

async function token() {
  const reply = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from('uploader:a%20secret%20of%20the%20tests').toString('base64')}` },
    body: new URLSearchParams({ grant_type: 'client_credentials', scope: 'attachments:write' }),
  });
  const body = await reply.json();
  if (!body.access_token) throw new Error(`no token: ${JSON.stringify(body)}`);
  return body.access_token;
}

const kid = (jwt) => JSON.parse(Buffer.from(jwt.split('.')[0], 'base64url')).kid;

async function upload(jwt, client = 42) {
  const form = new FormData();
  form.append('file', new Blob(['content']), 'a.txt');
  const url = `${base}/api/v2/clients/${client}/attachments/${1 + Math.floor(Math.random() * 1e9)}`;
  const reply = await fetch(url, { method: 'POST', headers: { authorization: `Bearer ${jwt}` }, body: form });
  await reply.text();
  return reply.status;
}

const ask = async (action) => {
  const reply = await fetch(`${control}${action}`, { method: 'POST' });
  if (reply.status !== 200) throw new Error(`${action}: ${await reply.text()}`);
};

async function eventually(name, seconds, holds) {
  const deadline = Date.now() + seconds * 1000;
  while (Date.now() < deadline) {
    if (await holds()) return verdict(name);
    await sleep(50);
  }
  return verdict(name, `not within ${seconds} s`);
}

const first = await token();
const status = await upload(first);
verdict('a token of the provider uploads', status === 201 ? '' : `status ${status}`);
const foreign = await upload(first, 43);
verdict('and not to another client', foreign === 403 ? '' : `status ${foreign}`);

// Four callers who take a new token each time, while the signing key changes ten times.
const kids = new Set();
const statuses = {};
let rotating = true;
const callers = Array.from({ length: 4 }, async () => {
  while (rotating) {
    const jwt = await token();
    kids.add(kid(jwt));
    const got = await upload(jwt);
    statuses[got] = (statuses[got] ?? 0) + 1;
  }
});
for (let round = 0; round < 10; round += 1) {
  await sleep(300);
  await ask('/add');
}
await sleep(300);
rotating = false;
await Promise.all(callers);
const all = JSON.stringify(statuses);
verdict(`no upload is refused while ${kids.size} keys sign (${all})`,
  kids.size >= 10 && Object.keys(statuses).join() === '201' ? '' : `${kids.size} keys, ${all}`);
const still = await upload(first);
verdict('a token of the first key holds while it is published', still === 201 ? '' : `status ${still}`);

await ask('/drop');
await eventually('a token of a key that was taken back is refused', 15, async () => await upload(first) === 401);
const last = await token();
const after = await upload(last);
verdict('a token of the key that is left uploads', after === 201 ? '' : `status ${after}`);

await ask('/down');
await sleep(2500);
const down = await upload(last);
verdict('it uploads while the provider is down', down === 201 ? '' : `status ${down}`);
await ask('/up');
await ask('/add');
await eventually('a new key is found when the provider is back', 15, async () => await upload(await token()) === 201);

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
