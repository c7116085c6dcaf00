// A gRPC client that loads the shipped proto at run time. See ../README.md for what goes in and out.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { createRequire } from 'node:module';
import { basename } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

const require = createRequire(new URL('../../.env/node/', import.meta.url));
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const { GRPC_ADDR, TOKEN, CLIENT_ID, ATTACHMENT_ID, FILE, MODE } = process.env;
const ids = { client_id: CLIENT_ID, attachment_id: ATTACHMENT_ID };

const shipped = protoLoader.loadSync('attachments/v2/attachments.proto', {
  includeDirs: [fileURLToPath(new URL('../../../proto', import.meta.url))],
  keepCase: true,
  longs: String,
});
const { AttachmentService } = grpc.loadPackageDefinition(shipped).attachments.v2;

// The messages of google.rpc that a refusal carries; no package here ships their protos.
const google = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
`, { keepCase: true }).root;

function errorInfo(metadata) {
  for (const encoded of metadata.get('grpc-status-details-bin')) {
    for (const detail of google.lookupType('google.rpc.Status').decode(encoded).details) {
      if (detail.type_url === 'type.googleapis.com/google.rpc.ErrorInfo') {
        return google.lookupType('google.rpc.ErrorInfo').decode(detail.value);
      }
    }
  }
  return { reason: null, domain: null };
}

// The messages of an upload, with the fault that the mode asks for.
async function* messages() {
  let size = 0;
  const digest = createHash('sha256');
  if (MODE !== 'chunk-first') {
    yield { header: { ...ids, filename: basename(FILE), content_type: 'application/x-attachd-test', if_absent: MODE === 'if-absent' } };
  }
  if (MODE === 'too-big-message') {
    yield { chunk: Buffer.alloc(16 << 20) };
  }
  for await (const chunk of createReadStream(FILE, { highWaterMark: 64 << 10 })) {
    size += chunk.length;
    digest.update(chunk);
    yield { chunk };
  }
  if (MODE === 'wrong-size') size += 1;
  if (MODE === 'wrong-digest') digest.update('!');
  if (MODE !== 'no-finish') yield { finish: { size, sha256: digest.digest() } };
}

function call(client, done) {
  const metadata = new grpc.Metadata();
  if (MODE !== 'no-token') {
    metadata.set('authorization', `Bearer ${MODE === 'bad-token' ? 'not.a.token' : TOKEN}`);
  }
  const options = { deadline: Date.now() + 50_000 };
  if (MODE === 'register') {
    client.RegisterAttachment(ids, metadata, options, done);
  } else {
    Readable.from(messages()).pipe(client.UploadAttachment(metadata, options, done));
  }
}

const compression = MODE === 'compressed' ? grpc.compressionAlgorithms.gzip : grpc.compressionAlgorithms.identity;
const client = new AttachmentService(GRPC_ADDR, grpc.credentials.createInsecure(), {
  'grpc.default_compression_algorithm': compression,
});
call(client, (error, response) => {
  let result;
  if (error) {
    const { reason, domain } = errorInfo(error.metadata);
    result = { ok: false, code: grpc.status[error.code], reason, domain, message: error.details };
  } else {
    const { client_id, attachment_id, filename, content_type, size, sha256, uploaded_by } = response.attachment;
    result = {
      ok: true,
      attachment: {
        client_id: Number(client_id),
        attachment_id: Number(attachment_id),
        filename,
        content_type,
        size: size === undefined ? null : Number(size),
        sha256: sha256 === undefined ? null : sha256.toString('hex'),
        uploaded_by,
      },
    };
  }
  console.log(JSON.stringify(result));
  client.close();
});
