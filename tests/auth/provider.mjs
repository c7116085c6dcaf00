// A real OpenID provider with keys that it rotates when it is told to.
//   node provider.mjs FILE       writes its issuer and the address of its control port to FILE, as JSON
// Control: POST /add makes a new key the signing one and keeps the others; POST /drop keeps the newest alone;
// POST /down closes the provider's port, POST /up opens it again. Each answers when it is done.
import { createECDH } from 'node:crypto';
import { writeFileSync, renameSync } from 'node:fs';
import http from 'node:http';
import { Provider } from 'oidc-provider';

const [file] = process.argv.slice(2);
let keys = [];
let handler;
let server;
let issuer;

/** A key of P-256 as a JWK, put together here: `KeyObject.export` of Node can wait for itself for ever. */
function freshKey() {
  const pair = createECDH('prime256v1');
  const point = pair.generateKeys();
  const number = (bytes) => Buffer.concat([Buffer.alloc(32 - bytes.length), bytes]).toString('base64url');
  const [x, y, d] = [point.subarray(1, 33), point.subarray(33), pair.getPrivateKey()].map(number);
  return { kty: 'EC', crv: 'P-256', x, y, d };
}

function addKey() {
  const kid = `key-${Date.now()}-${keys.length}`;
  keys = [{ ...freshKey(), kid, use: 'sig', alg: 'ES256' }, ...keys];
}

function build() {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'uploader',
      client_secret: 'a secret of the tests',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: 'ES256',
    }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'https://attachd.example/',
        getResourceServerInfo: () => ({
          scope: 'attachments:write',
          audience: 'attachd',
          accessTokenFormat: 'jwt',
          accessTokenTTL: 3600,
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
    extraTokenClaims: () => ({ client_ids: ['42'] }),
  });
  handler = provider.callback();
}

function listen(port) {
  return new Promise((done, fail) => {
    server = http.createServer((request, response) => handler(request, response));
    server.once('error', fail);
    server.listen(port, '127.0.0.1', () => done(server.address().port));
  });
}

const port = await listen(0);
issuer = `http://127.0.0.1:${port}`;
addKey();
build();

const actions = {
  '/add': async () => { addKey(); build(); },
  '/drop': async () => { keys = keys.slice(0, 1); build(); },
  '/down': async () => {
    const closed = new Promise((done) => { server.close(done); });
    server.closeAllConnections();
    await closed;
  },
  '/up': async () => { await listen(port); },
};
const control = http.createServer(async (request, response) => {
  try {
    await actions[request.url]();
    response.end('done\n');
  } catch (error) {
    response.writeHead(500).end(`${error}\n`);
  }
});
control.listen(0, '127.0.0.1', () => {
  writeFileSync(`${file}.new`, JSON.stringify({ issuer, control: `http://127.0.0.1:${control.address().port}` }));
  renameSync(`${file}.new`, file);
});
