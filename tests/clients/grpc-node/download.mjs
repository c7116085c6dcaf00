// Downloads an attachment over gRPC. See ../README.md for what goes in and out.
import { createWriteStream, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const require = createRequire(new URL('../../.env/node/', import.meta.url));
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const { GRPC_ADDR, TOKEN, CLIENT_ID, ATTACHMENT_ID, OUT, MODE, ETAG } = process.env;
const shipped = protoLoader.loadSync('attachments/v2/attachments.proto', {
  includeDirs: [fileURLToPath(new URL('../../../proto', import.meta.url))],
  keepCase: true,
  longs: String,
  defaults: true,
});
const { AttachmentService } = grpc.loadPackageDefinition(shipped).attachments.v2;

const request = { client_id: CLIENT_ID, attachment_id: ATTACHMENT_ID };
if (MODE === 'rest') {
  Object.assign(request, { offset: statSync(OUT).size, if_match: ETAG });
}
const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${TOKEN}`);
const client = new AttachmentService(GRPC_ADDR, grpc.credentials.createInsecure());
try {
  const file = createWriteStream(OUT, { flags: request.offset ? 'a' : 'w' });
  let length = null;
  for await (const message of client.DownloadAttachment(request, metadata)) {
    if (message.header) length = Number(message.header.length);
    else if (!file.write(message.chunk)) await new Promise((resolve) => file.once('drain', resolve));
  }
  await new Promise((resolve) => file.end(resolve));
  console.log(JSON.stringify({ ok: true, length }));
} catch (error) {
  console.log(JSON.stringify({ ok: false, code: grpc.status[error.code] }));
} finally {
  client.close();
}
