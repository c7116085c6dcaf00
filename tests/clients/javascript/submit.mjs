// A form of the package `form-data` whose file comes at 2 MB/s, sent by its `submit`, which sends a body to its end whatever
// is answered, unless the reply says that the connection is to be closed. See ../README.md for what goes in and out.
import { createReadStream } from 'node:fs';
import { createRequire } from 'node:module';
import { basename } from 'node:path';
import { Transform } from 'node:stream';

const FormData = createRequire(new URL('../../.env/form-data/', import.meta.url))('form-data');
const { BASE_URL, TOKEN, CLIENT_ID, ATTACHMENT_ID, FILE } = process.env;
const { hostname: host, port } = new URL(BASE_URL);

const slowly = new Transform({
  transform(chunk, _, done) { setTimeout(() => done(null, chunk), chunk.length / 2000); }
});
const form = new FormData();
form.append('file', createReadStream(FILE).pipe(slowly), { filename: basename(FILE) });
const path = `/api/v2/clients/${CLIENT_ID}/attachments/${ATTACHMENT_ID}`;
const request = form.submit({ host, port, path, headers: { Authorization: `Bearer ${TOKEN}` } }, (error, res) => {
  if (error) throw error;
  const chunks = [];
  res.on('data', (chunk) => chunks.push(chunk));
  res.on('end', () => console.log(JSON.stringify({ status: res.statusCode, body: JSON.parse(Buffer.concat(chunks)) })));
});
// The file is of no use once the connection is gone.
request.on('close', () => slowly.destroy());
