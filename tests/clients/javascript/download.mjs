// Downloads an attachment with fetch. See ../README.md for what goes in and out.
import { createWriteStream, statSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const { BASE_URL, CLIENT_ID, ATTACHMENT_ID, TOKEN, OUT, MODE, ETAG } = process.env;
const headers = { Authorization: `Bearer ${TOKEN}` };
if (MODE === 'rest') {
  Object.assign(headers, { Range: `bytes=${statSync(OUT).size}-`, 'If-Range': ETAG });
}

const response = await fetch(`${BASE_URL}/api/v2/clients/${CLIENT_ID}/attachments/${ATTACHMENT_ID}/content`, { headers });
if (response.ok) {
  // 206 is the rest; 200 is all of it, since the content has changed meanwhile.
  const file = createWriteStream(OUT, { flags: response.status === 206 ? 'a' : 'w' });
  await pipeline(response.body ? Readable.fromWeb(response.body) : [], file);
}
console.log(JSON.stringify({ status: response.status }));
