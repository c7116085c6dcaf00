// Uploads with tokens of a real provider, through its discovery, changes of its keys and outages.
//   ATTACHD=… WORK=… node providers.mjs keycloak DIRECTORY | hydra PROGRAM
// attachd is configured by the recipe of docs/how-to/issuers.md, whose issuer alone is replaced. Prints a line for each thing that was
// looked at, and `N passed, N failed` at the end.
import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { Hydra } from './hydra.mjs';
import { Keycloak } from './keycloak.mjs';
import { Attachd, stopAll, until } from './running.mjs';

const [which, where] = process.argv.slice(2);
const kind = { keycloak: Keycloak, hydra: Hydra }[which];
let passed = 0;
let failed = 0;

function verdict(name, why) {
  if (why) {
    failed += 1;
    console.log(`FAIL ${kind.name}: ${name}: ${why}`);
  } else {
    passed += 1;
    console.log(`ok ${kind.name}: ${name}`);
  }
}

/** The recipe of the documentation, for the issuer that is running. */
function recipe(issuer) {
  const text = readFileSync(new URL('../../docs/how-to/issuers.md', import.meta.url), 'utf8');
  const section = text.split(`\n### ${kind.name}\n`)[1];
  const table = section.split('```toml\n')[1].split('```')[0];
  return table.replace(/^issuer = .*$/m, `issuer = "${issuer}"`);
}

const kid = (token) => JSON.parse(Buffer.from(token.split('.')[0], 'base64url')).kid;

// The outcome over REST, and that of the command-line client over gRPC.
const STORED = [201, 0, ''];
const INVALID = [401, 1, 'TOKEN_INVALID'];
const FORBIDDEN = [403, 1, 'FORBIDDEN'];
const UNAVAILABLE = [503, 3, 'KEYS_UNAVAILABLE'];

/** Uploads by both protocols, and says what was not as expected. */
async function outcome(server, token, [status, code, reason], client) {
  const rest = await server.upload(token, client);
  if (rest.status !== status) return `REST: ${rest.status} ${rest.details}`;
  const grpc = await server.uploadOverGrpc(token, client);
  if (grpc.code !== code || !grpc.said.includes(reason)) return `gRPC: exit status ${grpc.code}, ${grpc.said}`;
  return '';
}

async function main() {
  const provider = await kind.make(where);

  // An outage at the start. The header and the claims are those of a token that nobody has signed.
  const server = await Attachd.start(`attachd-${which}`, recipe(provider.issuer));
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const unsigned = [
    part({ alg: 'RS256', kid: 'of-nobody' }),
    part({ iss: provider.issuer, aud: 'attachd', sub: 'somebody', exp: Math.floor(Date.now() / 1000) + 600 }),
    Buffer.alloc(256).toString('base64url'),
  ].join('.');
  const { status } = await server.readiness();
  verdict('attachd starts while the provider is down, and is not ready', status === 503 ? '' : `readyz is ${status}`);
  verdict('a token is answered 503 until the keys were there once', await outcome(server, unsigned, UNAVAILABLE));
  await provider.start();
  const found = await until('attachd is ready', 30, async () => (await server.readiness()).status === 200);
  verdict(`attachd is ready ${found} ms after the provider, without a restart`);

  // Tokens as the provider issues them.
  const first = await provider.good();
  verdict('a token uploads', await outcome(server, first, STORED));
  const inspected = await server.inspect(first);
  verdict('token inspect accepts it', inspected.code === 0 ? '' : inspected.said);
  verdict('a token is no use to another client', await outcome(server, first, FORBIDDEN, 44));
  verdict('a token for another audience is refused', await outcome(server, await provider.elsewhere(), INVALID));
  verdict('a forged token of the provider is refused', await outcome(server, unsigned, INVALID));
  verdict('a token without the scope is refused', await outcome(server, await provider.withoutScope(), FORBIDDEN));
  const member = await provider.ofGroup();
  verdict('a group grants what its members may do', await outcome(server, member, STORED));
  verdict('a group grants nothing else', await outcome(server, member, FORBIDDEN, 43));

  await rotation(provider, server, first);
  if (provider.replace) await replacement(provider, server);
  await outage(provider, server);
  if (which === 'hydra') await silence(provider, server);
}

/** Asks for a token of the key that signs now, and has it accepted. `wrong` says why it is not of that key. Returns the token. */
async function acceptedAtOnce(provider, server, name, wrong) {
  const began = Date.now();
  const token = await provider.good();
  const refused = [];
  try {
    await until(name, 30, async () => {
      const { status } = await server.upload(token);
      if (status !== 201) refused.push(status);
      return status === 201;
    });
    const took = Date.now() - began;
    verdict(`${name} is accepted ${took} ms after the rotation, at the first try`, wrong(token) || refused.join());
  } catch (error) {
    verdict(name, error.message);
  }
  verdict('and over gRPC', await outcome(server, token, STORED));
  return token;
}

/** A new key, with a name of its own. */
async function rotation(provider, server, first) {
  await provider.rotate();
  await acceptedAtOnce(provider, server, 'a token of a new key',
    (token) => kid(token) === kid(first) && 'the provider signs with the old key');
  verdict('a token of the old key is accepted while it is published', await outcome(server, first, STORED));
}

/** A new key under the name of the old one. */
async function replacement(provider, server) {
  const old = await provider.good();
  verdict('a token of the key that will be replaced uploads', await outcome(server, old, STORED));
  await provider.replace();
  await acceptedAtOnce(provider, server, 'a token of a key that was replaced under its kid',
    (token) => kid(token) !== kid(old) && 'the kid is another');
  verdict('a token of the key that is gone is refused', await outcome(server, old, INVALID));
}

/** The provider ends, and is started again. */
async function outage(provider, server) {
  // Neither of them was seen by attachd before.
  const known = await provider.good();
  await provider.rotate();
  const unknown = await provider.good();
  await provider.stop();
  verdict('a token of a known key is accepted while the provider is down', await outcome(server, known, STORED));
  verdict('a token of an unknown key is answered 503 meanwhile', await outcome(server, unknown, UNAVAILABLE));
  const { status, text } = await server.readiness();
  verdict('attachd stays ready meanwhile', status === 200 && text.includes('stale') ? '' : `${status} ${text}`);
  await provider.start();
  // A provider that forgets its keys when it ends has another one now.
  const token = provider.forgets ? await provider.good() : unknown;
  const name = 'a token of an unknown key is accepted';
  try {
    const took = await until(name, 30, async () => (await server.upload(token)).status === 201);
    const isKnown = kid(token) === kid(known);
    verdict(`${name} ${took} ms after the provider is back, without a restart`, isKnown ? 'the key is known' : '');
  } catch (error) {
    verdict(name, error.message);
  }
  verdict('and over gRPC', await outcome(server, token, STORED));
}

/** The provider accepts connections and answers nothing. */
async function silence(provider, server) {
  const known = await provider.good();
  await provider.rotate();
  const unknown = await provider.good();
  provider.program.child.kill('SIGSTOP');
  verdict('a token of a known key is accepted while the provider hangs', await outcome(server, known, STORED));
  verdict('a token of an unknown key is answered 503 while it hangs', await outcome(server, unknown, UNAVAILABLE));
  provider.program.child.kill('SIGCONT');
  const name = 'it is accepted';
  try {
    const took = await until(name, 30, async () => (await server.upload(unknown)).status === 201);
    verdict(`${name} ${took} ms after the provider goes on`);
  } catch (error) {
    verdict(name, error.message);
  }
}

process.on('SIGTERM', async () => {
  await stopAll();
  process.exit(1);
});
try {
  await main();
} catch (error) {
  verdict('the run itself', inspect(error));
} finally {
  await stopAll();
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
