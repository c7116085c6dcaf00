// Uploads through openapi-fetch with the types that openapi-typescript generates. ../README.md says what goes in and out.
import { createHash } from 'node:crypto';
import { openAsBlob } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import createClient from 'openapi-fetch';
import type { components, paths } from './attachd.js';

function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}

const path = variable('FILE');
const digest = createHash('sha256').update(await readFile(path)).digest('base64');
const client = createClient<paths>({
  baseUrl: variable('BASE_URL'),
  headers: { Authorization: `Bearer ${variable('TOKEN')}` },
});
const file = await openAsBlob(path);
const { data, error, response } = await client.POST('/api/v2/clients/{client_id}/attachments/{attachment_id}', {
  params: {
    path: { client_id: Number(variable('CLIENT_ID')), attachment_id: Number(variable('ATTACHMENT_ID')) },
    header: {
      'Repr-Digest': `sha-256=:${digest}:`,
      ...(variable('MODE') === 'if-absent' ? { 'If-None-Match': '*' } : {}),
    },
  },
  // openapi-typescript has no type for a file.
  body: { file: file as unknown as string },
  bodySerializer: () => {
    const form = new FormData();
    form.append('file', file, basename(path));
    return form;
  },
});
const body: components['schemas']['SuccessResponse'] | components['schemas']['ErrorResponse'] = data ?? error;
console.log(JSON.stringify({ status: response.status, body }));
