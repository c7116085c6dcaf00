// The documented sample for JavaScript, completed. See ../README.md for what goes in and out.
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';

const { BASE_URL, TOKEN, CLIENT_ID, ATTACHMENT_ID, FILE, MODE } = process.env;

function send(body, headers) {
  return fetch(`${BASE_URL}/api/v2/clients/${CLIENT_ID}/attachments/${ATTACHMENT_ID}`,
    {
      method: 'POST',
      body,
      headers: {
        ...headers,
        'Accept': 'application/json',
        'Authorization': `Bearer ${TOKEN}`
      }
    })
    .then(async function(res) {
      return { status: res.status, body: await res.json() };
    }).then(function(answer) {
      console.log(JSON.stringify(answer));
    });
}

if (MODE === 'documented') {
  const inputBody = '{\n"file": "string"\n}';
  await send(inputBody, { 'Content-Type': 'multipart/form-data' });
}
const form = new FormData();
form.append('file', new Blob([await readFile(FILE)]), basename(FILE));
await send(form, {});
