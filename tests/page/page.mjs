// Uses the page as a person does, in Chromium. Prints a line for each thing that was tried, and at the end
// `N passed, N failed`.
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const { LINK, SERVER, WORK, PICTURES, CHROMIUM } = process.env;
const [origin, token] = LINK.split('/#token=');
const MIB = 1 << 20;
let passed = 0, failed = 0;

async function check(name, act) {
  try {
    await act();
    passed += 1;
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}: ${error.message}`);
  }
}

// What the server has of client 1, asked beside the browser.
async function stored() {
  const response = await fetch(`${origin}/api/v2/clients/1/attachments?view=FULL`, { headers: { Authorization: `Bearer ${token}` } });
  return (await response.json()).details;
}

function file(name, size) {
  const path = join(WORK, name);
  const bytes = randomBytes(size);
  writeFileSync(path, bytes);
  return { path, name, sha256: createHash('sha256').update(bytes).digest('hex') };
}

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
const context = await browser.newContext({ acceptDownloads: true });
context.setDefaultTimeout(20000);
const page = await context.newPage();
const complaints = [], elsewhere = [];
page.on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()); });
page.on('pageerror', (error) => complaints.push(String(error)));
page.on('request', (request) => {
  const url = request.url();
  if (!url.startsWith(`${origin}/`) && !url.startsWith('data:') && !url.startsWith('blob:')) elsewhere.push(url);
});
const cdp = await context.newCDPSession(page);
const throttle = (uploadThroughput) =>
  cdp.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput });
const choose = (...files) => page.getByLabel('Choose files, or drop them here').setInputFiles(files.map((one) => one.path));
const said = (words) => page.locator('#said').filter({ hasText: words }).waitFor();
const upload = (words) => page.locator('#uploads li').filter({ hasText: words });
const rows = () => page.locator('#rows tr').count();

await check('the printed link opens the page, and the token leaves the address', async () => {
  await page.goto(LINK);
  await page.getByRole('heading', { name: 'attachd' }).waitFor();
  await page.getByText('This client has no files.').waitFor();
  assert.equal(page.url(), `${origin}/`);
});

const large = file('twenty MiB.bin', 20 * MIB);
await check('20 MiB are uploaded with progress, and listed', async () => {
  await throttle(10 * MIB);
  await choose(large);
  const bar = page.getByRole('progressbar', { name: `Progress of ${large.name}` });
  const seen = new Set();
  await bar.waitFor();
  for (let wait = 0; wait < 200 && (await bar.count()) > 0; wait += 1) {
    const share = await bar.evaluate((element) => element.value / element.max, undefined, { timeout: 1000 }).catch(() => 1);
    if (share > 0.02 && share < 0.98) seen.add(share);
    await page.waitForTimeout(20);
  }
  await throttle(-1);
  await upload(large.name).getByText('Stored.').waitFor();
  assert.ok(seen.size >= 3, `progress was seen ${seen.size} times`);
  await page.getByRole('cell', { name: '20.0 MiB', exact: true }).waitFor();
  const [record] = await stored();
  assert.deepEqual([record.filename, record.sha256 && Buffer.from(record.sha256, 'base64').toString('hex')], [large.name, large.sha256]);
});

await check('a reload keeps the token, and the files are listed', async () => {
  await page.reload();
  await page.getByRole('cell', { name: large.name, exact: true }).waitFor();
});

await check('the download is the file', async () => {
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: `Download ${large.name}` }).click(),
  ]);
  assert.equal(download.suggestedFilename(), large.name);
  const saved = join(WORK, 'saved');
  await download.saveAs(saved);
  assert.equal(createHash('sha256').update(readFileSync(saved)).digest('hex'), large.sha256);
  await said('its digest was verified');
});

await check('an upload that is cancelled in the middle stores nothing', async () => {
  const cancelled = file('cancelled.bin', 20 * MIB);
  await throttle(2 * MIB);
  await choose(cancelled);
  await page.waitForFunction(() => document.querySelector('#uploads progress')?.value > 0);
  await page.getByRole('button', { name: `Cancel the upload of ${cancelled.name}` }).click();
  await upload(cancelled.name).getByText('Cancelled. Nothing is stored.').waitFor();
  await throttle(-1);
  await page.getByRole('button', { name: 'Reload' }).click();
  await page.waitForTimeout(500);
  assert.equal(await rows(), 1);
  assert.equal((await stored()).length, 1);
});

const odd = file('<img src=x onerror=document.title="run"> "ä" 日本.txt', 1000);
await check('a name is shown as it is, and nothing in it runs', async () => {
  await choose(odd);
  await upload(odd.name).getByText('Stored.').waitFor();
  await page.getByRole('cell', { name: odd.name, exact: true }).waitFor();
  assert.equal(await page.title(), 'attachd');
  assert.deepEqual((await stored()).map((record) => record.filename), [large.name, odd.name]);
});

await check('files that are dropped are uploaded, an empty one too', async () => {
  await page.evaluate(() => {
    const data = new DataTransfer();
    data.items.add(new File(['dropped'], 'dropped.txt', { type: 'text/plain' }));
    data.items.add(new File([], 'empty.txt', { type: 'text/plain' }));
    document.getElementById('drop').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true }));
  });
  for (const name of ['dropped.txt', 'empty.txt']) await upload(name).getByText('Stored.').waitFor();
  await page.getByRole('cell', { name: '7 B', exact: true }).waitFor();
  await page.getByRole('cell', { name: '0 B', exact: true }).waitFor();
});

await check('a file is deleted by keyboard, after a question that can be declined', async () => {
  await page.getByRole('button', { name: 'Delete dropped.txt' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('dialog', { name: 'Delete this file?' }).waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  assert.equal((await stored()).length, 4);
  await page.getByRole('button', { name: 'Delete dropped.txt' }).focus();
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await said('dropped.txt is deleted.');
  assert.ok(!(await stored()).some((record) => record.filename === 'dropped.txt'));
  assert.equal(await page.getByRole('cell', { name: 'dropped.txt', exact: true }).count(), 0);
});

for (const colorScheme of ['light', 'dark']) {
  await check(`axe finds no fault in ${colorScheme} colours`, async () => {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'));
    const { violations, passes } = await page.evaluate(() => window.axe.run());
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`), []);
    assert.ok(passes.length > 10);
    if (PICTURES) await page.screenshot({ path: join(PICTURES, `page-${colorScheme}.png`), fullPage: true });
  });
}

await check('nothing is fetched from elsewhere, and the browser has no complaint', async () => {
  assert.deepEqual([elsewhere, complaints], [[], []]);
});

await check('a refused token is explained, and another one helps', async () => {
  await page.getByText('Token', { exact: true }).click();
  const field = page.getByLabel('The token of this session');
  await field.fill('a.b.c');
  await field.press('Enter');
  await said('JWT token invalid');
  await said('Enter another token under Access.');
  await choose(odd);
  await upload('JWT token invalid').waitFor();
  await field.fill(token);
  await field.press('Enter');
  await page.locator('#said').filter({ hasText: /^$/ }).waitFor({ state: 'attached' });
  await page.getByRole('cell', { name: large.name, exact: true }).waitFor();
});

await check('an invalid client id is explained', async () => {
  await page.getByLabel('Client').fill('0');
  await page.getByLabel('Client').press('Enter');
  await said(/client_id.*\(400\)/);
  await page.getByLabel('Client').fill('1');
  await page.getByLabel('Client').press('Enter');
  await page.locator('#said').filter({ hasText: /^$/ }).waitFor({ state: 'attached' });
});

await check('without a token the page says where there is one', async () => {
  const other = await (await browser.newContext()).newPage();
  await other.goto(`${origin}/`);
  await other.getByText('attachd dev prints a link that has one').waitFor();
  assert.ok(await other.getByLabel('The token of this session').isVisible());
});

await check('a server that has stopped is explained', async () => {
  process.kill(Number(SERVER), 'SIGTERM');
  await page.waitForTimeout(1000);
  await page.getByRole('button', { name: 'Reload' }).click();
  await said('The server cannot be reached.');
  await choose(odd);
  await upload('The connection broke before the response').waitFor();
});

await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
